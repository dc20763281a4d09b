"""Whom the embedded PostgreSQL runs as. An ordinary user: himself. Root, whom PostgreSQL refuses: a system user.

That user may be unable to enter the folders where root keeps things (/root is usually 0700). Nothing that is not ours
gets other rights for that: data and a copy of the programs (`tuner.storage.programs`) go to /var/lib/tuner instead.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import DatabaseError

SYSTEM_USER = "tuner-postgres"
SYSTEM_FOLDER = Path("/var/lib/tuner")
USERADD_SECONDS = 10  # another useradd may hold the lock of /etc/passwd


@dataclass(frozen=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int

    @property
    def is_self(self) -> bool:
        return self.uid == os.geteuid()

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a program as this user: in a session of its own (Ctrl-C is for the launcher), in a clean environment.

        Raises PermissionError where this user cannot reach the program.
        """
        if not self.is_self:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        # Output goes to a file: the server would inherit a pipe, and reading it would never end.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            result = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                umask=0o077,
                check=False,
                **options,
            )
            output.seek(0)
            return subprocess.CompletedProcess(result.args, result.returncode, output.read())

    def reaches(self, path: Path) -> bool:
        """Whether this user can enter a folder (asked of the system: modes are not the whole truth)."""
        return self.is_self or self.run("/usr/bin/test", "-x", path).returncode == 0

    def own(self, path: Path) -> Path:
        """Makes a path of ours this user's alone."""
        if not self.is_self:
            os.chown(path, self.uid, self.gid)
        path.chmod(0o700 if path.is_dir() else 0o600)
        return path


def account_for(data: Path) -> Account:
    """Whom a server over this data folder runs as; made where it is a system user that does not exist.

    Raises DatabaseError where the data belongs to somebody else.
    """
    me = os.geteuid()
    if data.exists():
        owner = data.stat().st_uid
        if me not in (0, owner):
            raise DatabaseError(f"{data} belongs to user {_name(owner)}; run tuner as that user, or set TUNER_HOME")
    else:
        owner = me
    if owner != 0:
        try:
            return _account(pwd.getpwuid(owner))
        except KeyError:
            raise DatabaseError(
                f"user {owner} has no entry in /etc/passwd, and PostgreSQL wants one: add it, or set TUNER_DATABASE_URL"
            ) from None
    try:
        return _account(pwd.getpwnam(SYSTEM_USER))
    except KeyError:
        return _account(_add_system_user())


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _add_system_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    deadline = time.monotonic() + USERADD_SECONDS
    while True:
        try:
            result = subprocess.run(
                [*command, "--shell", "/usr/sbin/nologin", SYSTEM_USER], capture_output=True, text=True, check=False
            )
            why = result.stderr.strip()
        except FileNotFoundError:
            why = "there is no useradd here"
        with contextlib.suppress(KeyError):  # perhaps another process was faster
            return pwd.getpwnam(SYSTEM_USER)
        if time.monotonic() > deadline or why == "there is no useradd here":
            raise DatabaseError(
                f"PostgreSQL does not run as root, and making the system user {SYSTEM_USER} failed ({why}); "
                "make it yourself, run tuner as an ordinary user, or set TUNER_DATABASE_URL"
            )
        time.sleep(0.2)


def system_place(prefix: str) -> Path:
    """A new folder below /var/lib/tuner that every user can reach.

    Raises DatabaseError where even root cannot make one.
    """
    try:
        SYSTEM_FOLDER.mkdir(mode=0o755, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=SYSTEM_FOLDER))
    except OSError as error:
        raise DatabaseError(
            f"user {SYSTEM_USER} cannot enter TUNER_HOME, and {SYSTEM_FOLDER} cannot be used ({error.strerror}); "
            "set TUNER_HOME to a folder that all users may enter, such as /srv/tuner"
        ) from error
