"""Worker processes of this machine, as their launcher holds them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
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

Crew = Callable[[str], LocalWorkers]

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
def crew(database_url: str, settings: Settings) -> Iterator[Crew]:
    """Workers, not started, for a study; let go of after the test."""
    with ExitStack() as stack:

        def make(study: str) -> LocalWorkers:
            workers = LocalWorkers([study], database_url=database_url, settings=settings, slots=1, device="cpu")
            return stack.enter_context(closing(workers))

        yield make


@pytest.fixture
def paused_study(db: Database, tmp_path: Path) -> None:
    """A study that gives no trials to its workers, who wait."""
    (tmp_path / "idle.yaml").write_text(IDLE)
    launch_study(db, read_spec(tmp_path / "idle.yaml"), {})
    db.execute("UPDATE tuner.study SET state = 'paused'")


def registered(db: Database, count: int) -> list[int]:
    deadline = time.monotonic() + 60
    while len(found := list_workers(db)) < count:
        assert time.monotonic() < deadline, "the workers did not start"
        time.sleep(0.1)
    return [worker.pid for worker in found]


def test_workers_run_apart_from_the_terminal_and_without_secrets_in_their_arguments(
    crew: Crew, settings: Settings, db: Database, paused_study: None
) -> None:
    workers = crew("idle")
    workers.start(2)
    assert workers.running == 2
    pids = registered(db, 2)
    for pid in pids:
        assert os.getsid(pid) == pid
        assert "postgres" not in " ".join(psutil.Process(pid).cmdline())
    assert len({*workers.logs}) == 2
    assert {log.parent for log in workers.logs} == {settings.artifacts / "workers"}

    workers.terminate()
    assert workers.wait(30)
    assert [type(failure) for failure in workers.failures()] == [WorkersFailed, WorkersFailed]  # none did its work
    assert list_workers(db) == []


def test_a_worker_that_was_told_three_times_is_killed(
    crew: Crew, settings: Settings, db: Database, paused_study: None
) -> None:
    workers = crew("idle")
    workers.start(1)
    (pid,) = registered(db, 1)
    os.kill(pid, signal.SIGSTOP)  # deaf to all but the last
    for _ in range(3):
        workers.terminate()
    assert workers.wait(30)
    assert "SIGKILL" in str(workers.failure())


def test_a_worker_that_ends_by_a_documented_code_is_that_error(crew: Crew, db: Database) -> None:
    workers = crew("nowhere")
    workers.start(1)
    assert workers.wait(60)
    failure = workers.failure()
    assert isinstance(failure, NotFound)
    assert str(failure).startswith("no study 'nowhere'")


def test_logs_that_cannot_be_written_are_one_line(crew: Crew, settings: Settings) -> None:
    settings.artifacts.parent.mkdir()
    settings.artifacts.write_text("a file where a folder should be")
    with pytest.raises(ArtifactError, match="artifacts"):
        crew("idle").start(1)
