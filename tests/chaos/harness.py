"""Where the suite's rows are made: a durable PostgreSQL, studies, and workers as processes that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from tests.chaos.stub import TRAINING as STUB
from tests.chaos.stub import Behaviour
from tests.chaos.zygote import EXIT_SUFFIX
from tuner.spec.study import read_spec
from tuner.storage.connection import Database, Row
from tuner.storage.retry import until_answered
from tuner.storage.server import EmbeddedServer
from tuner.storage.steering import launch_study
from tuner.storage.studies import StudyRecord

HEARTBEATS_A_LEASE = 8
POLL_SECONDS = 0.05

# Two knobs that no stub looks at: points that can be compared.
STUDY = """
study: chaos
data: {name: spiral}
model: {family: mlp, units: {low: 16, high: 256}}
training: {epochs: 20, learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}
search: {method: random, seed: 0}
budget: {trials: 1}
"""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How large a row is: as the table says, or small enough for every run of the tests."""

    full: bool
    seed: int
    lease_seconds: float

    def __call__(self, short: Any, full: Any) -> Any:
        return full if self.full else short

    @property
    def random(self) -> random.Random:
        return random.Random(self.seed)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TUNER_LEASE_SECONDS": str(self.lease_seconds),
            "TUNER_HEARTBEAT_SECONDS": str(self.lease_seconds / HEARTBEATS_A_LEASE),
        }


class Figures(dict[str, Any]):
    """What a row measured, in the order in which it is shown."""


class Process:
    """Forked from the zygote: not our child, so that its end is seen from outside."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        try:
            self._seen: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:  # it has ended already
            self._seen = None

    @property
    def alive(self) -> bool:
        return self._seen is not None and self._seen.is_running() and self._seen.status() != psutil.STATUS_ZOMBIE

    def signal(self, number: signal.Signals) -> None:
        if self._seen is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._seen.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def children(self) -> list[psutil.Process]:
        """A worker's training processes: those of its fork server that lead a session of their own."""
        try:
            family = self._seen.children(recursive=True) if self._seen else []
            return [child for child in family if os.getsid(child.pid) == child.pid]
        except (psutil.NoSuchProcess, ProcessLookupError):
            return []

    @property
    def code(self) -> int | None:
        """Its exit code; None where it runs, or was killed."""
        with contextlib.suppress(FileNotFoundError):
            return int(self.log.with_name(self.log.name + EXIT_SUFFIX).read_text())
        return None

    def wait(self, seconds: float = 120.0) -> int | None:
        until(lambda: not self.alive, f"the end of process {self.pid} ({self.log})", seconds)
        return self.code


class Zygote:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            # Not `-m`: every child of a worker would import the main module again.
            [sys.executable, "-c", "from tests.chaos.zygote import main; main()"],
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def fork(self, program: str, log: Path, environment: Mapping[str, str], **arguments: Any) -> Process:
        order = {"program": program, "log": str(log), "environment": dict(environment), "arguments": arguments}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Process(int(self._answer()), log)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the zygote has died"
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


class Arena:
    """A database on a durable server, a folder for artifacts and logs, and the processes started on them."""

    def __init__(self, zygote: Zygote, server: EmbeddedServer, url: str, home: Path, form: Form) -> None:
        self.server = server
        self.url = url
        self.home = home
        self.form = form
        self.db = Database(url, application="chaos")
        self._zygote = zygote
        self.processes: list[Process] = []
        self._mark = {"CHAOS_ARENA": uuid4().hex}
        # Of this arena only: a worker of the suite shall know no other database, and no data set.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TUNER_", "PG"))}
        self._environment = {**kept, **form.environment, "TUNER_HOME": str(home), **self._mark}

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    def study(self, text: str = STUDY, name: str = "chaos", **changes: object) -> StudyRecord:
        """`training__epochs=3` is `--set training.epochs=3`."""
        file = self.home / "study.yaml"
        file.write_text(text)
        overrides = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
        record, _ = launch_study(self.db, read_spec(file, overrides, name), {})
        return record

    def start(self, program: str, **arguments: Any) -> Process:
        return self._fork(program, {}, arguments)

    def worker(
        self,
        *studies: str,
        behaviour: Behaviour | None = None,
        slots: int = 1,
        training: str = STUB,
        url: str | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> Process:
        """A worker that serves these studies. `limits` are the system's, by their names."""
        arguments = {"url": url or self.url, "studies": studies, "slots": slots, "training": training}
        return self._fork("worker", (behaviour or Behaviour()).environment, {**arguments, "limits": limits or {}})

    def _fork(self, program: str, environment: Mapping[str, str], arguments: Mapping[str, Any]) -> Process:
        log = self.home / f"{program}-{len(self.processes)}.log"
        process = self._zygote.fork(program, log, {**self._environment, **environment}, **arguments)
        self.processes.append(process)
        return process

    def finish(self, *studies: str, workers: int = 1, **options: Any) -> None:
        """Has workers serve the studies to their end, undisturbed."""
        codes = [worker.wait(600) for worker in [self.worker(*studies, **options) for _ in range(workers)]]
        assert codes == [0] * workers, [process.log.read_text() for process in self.processes[-workers:]]

    def rows(self, statement: str, **values: Any) -> list[Row]:
        """What the database says, also where it was restarted since the last look."""
        return until_answered(lambda: self.db.execute(statement, **values))

    def number(self, statement: str, **values: Any) -> Any:
        """The single value of a single row."""
        ((value,),) = self.rows(statement, **values)
        return value

    def epochs(self, study: StudyRecord) -> int:
        """Epochs reported so far: how a study's progress is measured."""
        return int(
            self.number("SELECT coalesce(sum(epoch), 0) FROM tuner.lease WHERE study_id = %(s)s", s=study.study_id)
        )

    def finished(self, study: StudyRecord) -> bool:
        return bool(self.number("SELECT state = 'finished' FROM tuner.study WHERE study_id = %(s)s", s=study.study_id))

    @contextlib.contextmanager
    def empty_database(self) -> Iterator[str]:
        """The URL of another database, without any table."""
        name = f"chaos_{uuid4().hex[:12]}"
        self.db.execute(f'CREATE DATABASE "{name}"')
        try:
            yield replace(self.db.address, database=name).url
        finally:
            self.db.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def orphans(self) -> list[int]:
        """Children and fork servers of this arena's workers; the workers themselves are not among them."""
        name, value = next(iter(self._mark.items()))
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.db.close()
        try:
            until(lambda: not self.orphans(), "children end with their supervisors", 20)
        finally:
            for orphan in self.orphans():
                os.kill(orphan, signal.SIGKILL)


def until(condition: Callable[[], object], what: str, seconds: float = 60.0, pause: float = POLL_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(pause)


@contextlib.contextmanager
def frozen(process: Process) -> Iterator[None]:
    """It does nothing meanwhile."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


@dataclass(frozen=True, kw_only=True)
class HeldTrial:
    """A trial that a worker held when its row was read."""

    trial_id: int
    attempt: int
    deaths: int

    def next_attempt(self, arena: Arena) -> Row | None:
        """Waits until somebody has begun it again; None where it had been about to end, and did."""

        def seen() -> Row:
            (row,) = arena.rows(
                "SELECT attempt, lease.outcome, attempt.started_at FROM tuner.lease "
                "JOIN tuner.attempt USING (trial_id, attempt) WHERE trial_id = %(t)s",
                t=self.trial_id,
            )
            return row

        until(lambda: seen().attempt > self.attempt or seen().outcome is not None, f"another attempt at {self}")
        return seen() if seen().attempt > self.attempt else None


def held_by(arena: Arena, worker: Process) -> list[HeldTrial]:
    rows = arena.rows(
        """
        SELECT trial_id, attempt, deaths FROM tuner.lease JOIN tuner.worker USING (worker_id)
        WHERE pid = %(pid)s AND lease_until IS NOT NULL AND outcome IS NULL""",
        pid=worker.pid,
    )
    return [HeldTrial(trial_id=row.trial_id, attempt=row.attempt, deaths=row.deaths) for row in rows]
