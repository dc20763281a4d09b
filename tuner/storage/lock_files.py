"""The files by which a PostgreSQL server says that it runs: `postmaster.pid`, and the socket's lock file.

A server that is killed leaves them behind, and the number in them may come to belong to any other process.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import DatabaseError

NO_PROCESS = 2**22 + 1  # above every process id: Linux's largest is below 2^22


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where a server says that it listens."""

    sockets: str  # folder
    port: str


def listening(data: Path) -> Listening | None:
    """What `postmaster.pid` says, be it true or stale."""
    # Its lines: process, data folder, start time, port, folder of sockets, address, shared memory, state.
    lines = read(data / "postmaster.pid").splitlines()
    return Listening(sockets=lines[4], port=lines[3]) if len(lines) >= 5 and lines[4] else None


def postmaster(data: Path) -> int | None:
    """The process id of the server that runs on a data folder; None where none does, whoever has its number now."""
    pid = _named(read(data / "postmaster.pid"))
    return pid if pid is not None and str(data) in _command(pid) else None


def disown_stale(data: Path, sockets: Path) -> None:
    """Lets PostgreSQL see that its process in a lock file is gone although another one has that number now.

    It sees by itself where none has. postmaster.pid stays: its other lines keep a server from starting while processes
    of the old one live.
    """
    for file in sockets.glob(".s.PGSQL.*.lock"):
        if _is_misleading(_named(read(file)), data):
            file.unlink(missing_ok=True)
    pid_file = data / "postmaster.pid"
    try:
        text = pid_file.read_text()
    except FileNotFoundError:
        return
    if _named(text) is None:  # torn
        pid_file.unlink()
    elif _is_misleading(_named(text), data):
        _, newline, rest = text.partition("\n")
        pid_file.write_text(f"{NO_PROCESS}{newline}{rest}")


def read(path: Path) -> str:
    """A small file's text, empty where there is none.

    Raises DatabaseError where it is not ours to read.
    """
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except PermissionError as error:
        raise DatabaseError(f"{path} belongs to another user; set TUNER_HOME to a folder of yours") from error


def _named(text: str) -> int | None:
    """The process that a lock file names in its first line."""
    first = text.partition("\n")[0].strip()
    return int(first) if first.isdigit() else None


def _is_misleading(pid: int | None, data: Path) -> bool:
    """Whether that process lives and is not the data folder's server."""
    return pid is not None and _lives(pid) and str(data) not in _command(pid)


def _lives(pid: int) -> bool:
    """Whether there is such a process, be it a zombie or another user's."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _command(pid: int) -> list[str]:
    """The command line of a process; empty where there is none."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
        except OSError:
            return []
    result = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return result.stdout.split()
