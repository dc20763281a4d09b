"""Worker processes of this machine, as their launcher holds them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tuner.errors import ArtifactError, NotFound, WorkersFailed
from tuner.launchers.local import LocalWorkers
from tuner.settings import Settings, read_settings
from tuner.spec.study import read_spec
from tuner.storage.connection import Database
from tuner.storage.steering import launch_study
from tuner.storage.workers import list_workers

IDLE = """\
study: idle
data: {name: spiral, points: 60}
model: {family: mlp}
budget: {trials: 1}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({"TUNER_HOME": str(tmp_path / "home")})


@pytest.fixture
def workers(settings: Settings) -> Iterator[LocalWorkers]:
    """None started yet; let go of after the test."""
    with LocalWorkers(settings=settings, slots=1, device="cpu") as workers:
        yield workers


@pytest.fixture
def paused_study(db: Database, tmp_path: Path) -> None:
    """A study that gives no trials to its workers, who wait."""
    (tmp_path / "idle.yaml").write_text(IDLE)
    launch_study(db, read_spec(tmp_path / "idle.yaml"), {})
    db.execute("UPDATE tuner.study SET state = 'paused'")


def group(leader: int) -> list[int]:
    """The processes of a group that live."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def registered(db: Database, count: int) -> list[int]:
    deadline = time.monotonic() + 60
    while len(found := list_workers(db)) < count:
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.1)
    return [worker.pid for worker in found]


def test_workers_run_apart_from_the_terminal_and_without_secrets_in_their_arguments(
    workers: LocalWorkers, settings: Settings, db: Database, paused_study: None
) -> None:
    workers.start(2)
    assert workers.running == 2
    workers.serve(["idle"], db.address.url)
    pids = registered(db, 2)
    for pid in pids:
        assert os.getsid(pid) == pid
        assert "postgres" not in " ".join(psutil.Process(pid).cmdline())
        assert not {"TUNER_DATABASE_URL", "PGPASSWORD"} & psutil.Process(pid).environ().keys()
    assert len({*workers.logs}) == 2
    assert {log.parent for log in workers.logs} == {settings.artifacts / "workers"}

    workers.terminate()
    assert workers.wait(30)
    assert [type(failure) for failure in workers.failures()] == [WorkersFailed, WorkersFailed]  # none did its work
    assert list_workers(db) == []


def test_a_worker_that_was_told_three_times_is_killed(workers: LocalWorkers, db: Database, paused_study: None) -> None:
    workers.start(1)
    workers.serve(["idle"], db.address.url)
    (pid,) = registered(db, 1)
    os.kill(pid, signal.SIGSTOP)  # deaf to all but the last
    for _ in range(3):
        workers.terminate()
    assert workers.wait(30)
    assert "SIGKILL" in str(workers.failure())


def descendants() -> set[psutil.Process]:
    """Of this process: tests before may have left a resource tracker, which lives as long as this."""
    return set(psutil.Process().children(recursive=True))


def test_a_worker_that_died_before_its_orders_is_told_of(workers: LocalWorkers, db: Database) -> None:
    others = descendants()
    workers.start(1)
    (worker,) = descendants() - others
    worker.kill()
    workers.wait(10)
    workers.serve(["idle"], db.address.url)
    assert "SIGKILL" in str(workers.failure())


def test_a_worker_that_ends_by_a_documented_code_is_that_error(workers: LocalWorkers, db: Database) -> None:
    workers.start(1)
    workers.serve(["nowhere"], db.address.url)
    assert workers.wait(60)
    failure = workers.failure()
    assert isinstance(failure, NotFound)
    assert str(failure).startswith("no study 'nowhere'")


@pytest.mark.parametrize("when", ["at once", "when it waits"])
def test_workers_without_orders_end_and_leave_nothing(settings: Settings, when: str, tmp_path: Path) -> None:
    """A launch that fails has started them for nothing."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch, LocalWorkers(settings=settings, slots=1, device="cpu") as workers:
        patch.setenv("TMPDIR", str(temporary))
        others = descendants()
        workers.start(2)
        family = descendants() - others
        while when == "when it waits" and len(family) < 6:  # each with its fork server and resource tracker
            family = descendants() - others
    assert workers.running == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert list((settings.artifacts / "workers").iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_a_worker_whose_launcher_is_gone_before_it_gave_orders_ends(settings: Settings, tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = f"""
import os, signal
from pathlib import Path
import psutil
from tuner.launchers.local import LocalWorkers
from tuner.settings import read_settings
workers = LocalWorkers(settings=read_settings({{"TUNER_HOME": {str(settings.home)!r}}}), slots=1, device="cpu")
workers.start(1)
Path({str(started)!r}).write_text(str(psutil.Process().children()[0].pid))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    worker = int(started.read_text())
    deadline = time.monotonic() + 30
    while group(worker):
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.1)
    (log,) = (settings.artifacts / "workers").iterdir()
    assert log.read_text() == ""


def test_logs_that_cannot_be_written_are_one_line(workers: LocalWorkers, settings: Settings) -> None:
    settings.artifacts.parent.mkdir()
    settings.artifacts.write_text("a file where a folder should be")
    with pytest.raises(ArtifactError, match="artifacts"):
        workers.start(1)
