"""A real PostgreSQL for every test that asks for one: a fresh database, cloned from one whose tables are made."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tuner.storage.connection import Database
from tuner.storage.schema import ensure_schema
from tuner.storage.server import EmbeddedServer
from tuner.storage.url import parse

_numbers = itertools.count()


def remove_server(folder: Path) -> None:
    """Ends an embedded server, at once, and removes all that it kept, also outside of its folder."""
    if not folder.exists():
        return
    pid = EmbeddedServer(folder).status().pid
    if pid is not None:
        os.kill(pid, signal.SIGQUIT)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
    places = [folder / "location", folder / "socket"]
    if places[0].exists():
        places.append(Path(places[0].read_text().strip()) / "socket")
    for place in [Path(record.read_text().strip()) for record in places if record.exists()]:
        shutil.rmtree(place)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A new folder that every user may enter; pytest's own are closed to the user that root's PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-test-"))
    folder.chmod(0o711)
    yield folder
    for child in folder.glob("**/postgres*"):
        if child.is_dir() and (child / "host").exists():
            remove_server(child)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """The URL of a server on which tests may make databases: TUNER_TEST_DATABASE_URL, or our own, not durable."""
    if given := os.environ.get("TUNER_TEST_DATABASE_URL"):
        yield given
        return
    home = Path(tempfile.mkdtemp(prefix="tuner-test-"))
    home.chmod(0o711)
    server = EmbeddedServer(home / "postgres", durable=False)
    try:
        yield server.start()
    finally:
        remove_server(server.folder)
        shutil.rmtree(home)


def _beside(url: str, database: str) -> str:
    """The URL of another database of the same server."""
    return replace(parse(url), database=database).url


def _drop(admin: Database, name: str) -> None:
    admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def _template(database_server: str) -> Iterator[str]:
    """The name of a database with all tables and no rows."""
    name = f"tuner_template_{uuid4().hex[:12]}"
    with Database(database_server) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            ensure_schema(_beside(database_server, name))
            yield name
        finally:
            _drop(admin, name)


@pytest.fixture
def database_url(database_server: str, _template: str) -> Iterator[str]:
    """A fresh database with all tables, dropped after the test whoever is still connected."""
    name = f"tuner_test_{os.getpid()}_{next(_numbers)}_{uuid4().hex[:6]}"
    with Database(database_server) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{_template}"')
        admin.execute(f'ALTER DATABASE "{name}" SET search_path = public')  # a clone does not take this over
        try:
            yield _beside(database_server, name)
        finally:
            _drop(admin, name)


@pytest.fixture
def empty_database_url(database_server: str) -> Iterator[str]:
    """A fresh database without any table."""
    name = f"tuner_empty_{os.getpid()}_{next(_numbers)}_{uuid4().hex[:6]}"
    with Database(database_server) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            yield _beside(database_server, name)
        finally:
            _drop(admin, name)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with Database(database_url, application="tuner tests") as database:
        yield database


@pytest.fixture
def home(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TUNER_HOME; a server started in it is stopped afterwards."""
    folder = open_folder / "home"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv("TUNER_HOME", str(folder))
    for name in ("TUNER_DATABASE_URL", "TUNER_ARTIFACTS", "TUNER_DATA"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # files may be open still


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Ready data sets, laid out as TUNER_DATA is."""
    given = os.environ.get("TUNER_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist; set TUNER_DATA to a folder that holds the data sets")
    return folder
