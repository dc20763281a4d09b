"""Real workers on a real database: processes that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.chaos.stub import Behaviour
from tuner.spec.study import read_spec
from tuner.storage.connection import Database, Row
from tuner.storage.steering import launch_study
from tuner.storage.studies import StudyRecord

REPOSITORY = Path(__file__).resolve().parents[2]

# Slow enough to be disturbed: an epoch takes a few tenths of a second.
SLOW_EPOCHS = 8
SLOW = f"""
study: slow
data: {{name: spiral, points: 60000}}
model: {{family: mlp, layers: 2, units: 32, dropout: {{low: 0.0, high: 0.4}}}}
training:
  {{engine: single, epochs: {SLOW_EPOCHS}, batch_size: 32, learning_rate: {{low: 1.0e-4, high: 1.0e-2, log: true}}}}
search: {{method: random, seed: 3}}
budget: {{trials: 2}}
"""

QUICK = """
study: quick
data: {name: spiral, points: 200}
model: {family: mlp, layers: {low: 1, high: 2}, units: {choices: [8, 16]}}
training: {engine: single, epochs: 3, batch_size: 32, learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true, points: 8}}
search: {method: random, seed: 0}
budget: {trials: 16}
"""


# So that nobody waits for half a minute until a dead worker's trials are handed on.
SHORT_LEASE = {"TUNER_LEASE_SECONDS": "8", "TUNER_HEARTBEAT_SECONDS": "1"}


REAL = ["-P", "-m", "tuner", "worker", "start"]
STUBBED = ["-c", "import sys; from tests.worker.stubbed import main; main(sys.argv[1:])"]


class Worker:
    """A `tuner worker start` process."""

    def __init__(
        self,
        environment: dict[str, str],
        *arguments: str,
        folder: Path,
        preexec: Callable[[], None] | None = None,
        program: Sequence[str] = REAL,
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=preexec,  # noqa: PLW1509  it only sets a limit
        )
        self.seen = psutil.Process(self.process.pid)

    def children(self) -> list[psutil.Process]:
        """The training processes: those of the fork server that lead a session of their own."""
        try:
            return [child for child in self.seen.children(recursive=True) if os.getsid(child.pid) == child.pid]
        except (psutil.NoSuchProcess, ProcessLookupError):
            return []

    def wait(self, seconds: float = 120) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output

    def stop(self) -> None:
        family = [self.seen, *self.seen.children(recursive=True)] if self.seen.is_running() else []
        for process in family:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Bench:
    """A database, a home folder, and the workers started on them."""

    def __init__(self, db: Database, url: str, home: Path) -> None:
        self.db = db
        self.home = home
        self.environment = {**os.environ, **SHORT_LEASE, "TUNER_DATABASE_URL": url, "TUNER_HOME": str(home)}
        self.workers: list[Worker] = []

    def study(self, text: str, **changes: str) -> StudyRecord:
        file = self.home / "study.yaml"
        file.write_text(text)
        name = changes.pop("name", None)
        overrides = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
        record, _ = launch_study(self.db, read_spec(file, overrides, name), {})
        return record

    def start(self, *arguments: str, folder: Path = Path(), preexec: Callable[[], None] | None = None) -> Worker:
        worker = Worker(self.environment, *arguments, folder=folder, preexec=preexec)
        self.workers.append(worker)
        return worker

    def start_stub(self, *arguments: str, behaviour: Behaviour) -> Worker:
        """A worker whose children only sleep."""
        environment = {**self.environment, **behaviour.environment, "PYTHONPATH": str(REPOSITORY)}
        worker = Worker(environment, *arguments, folder=self.home, program=STUBBED)
        self.workers.append(worker)
        return worker

    def finish(self, *arguments: str) -> None:
        code, output = self.start(*arguments).wait()
        assert code == 0, output

    def until(self, condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                outputs = [worker.process.poll() for worker in self.workers]
                raise AssertionError(f"{what}: not within {seconds} s (exit codes of the workers: {outputs})")
            time.sleep(0.05)

    def trials(self, study: StudyRecord) -> list[Row]:
        """One row a trial: what the database says of it."""
        return self.db.execute(
            """
            SELECT trials.number, trials.state::text, lease.attempt, lease.deaths, lease.epoch, lease.outcome,
                lease.shared, lease.reason, lease.checkpoint, lease.lease_until, lease.trial_id,
                (SELECT value FROM trial_values v WHERE v.trial_id = trials.trial_id) AS value,
                (SELECT array_agg(intermediate_value ORDER BY step) FROM trial_intermediate_values i
                    WHERE i.trial_id = trials.trial_id) AS curve,
                (SELECT array_agg(step ORDER BY step) FROM trial_intermediate_values i
                    WHERE i.trial_id = trials.trial_id) AS steps,
                (SELECT jsonb_object_agg(param_name, param_value) FROM trial_params p
                    WHERE p.trial_id = trials.trial_id) AS params
            FROM trials LEFT JOIN tuner.lease USING (trial_id)
            WHERE trials.study_id = %(study)s ORDER BY trials.number""",
            study=study.study_id,
        )

    def attempts(self, study: StudyRecord) -> list[int]:
        return [row.attempt for row in self.trials(study)]

    def epochs(self, study: StudyRecord) -> int:
        return sum(row.epoch for row in self.trials(study))
