"""Workers as processes of this machine, each in a session of its own.

They are started before there is anything to serve: importing torch takes seconds, in which the launcher makes the
server, the tables, the data and the studies. Then they are told what to serve, or sent away.

Attached workers end with their launcher in whatever way it goes, kill -9 included: it holds a pipe to the standard
input of each, which the system closes. Detached ones live on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self

from tuner.errors import (
    ArtifactError,
    DatabaseError,
    DataError,
    InvalidInput,
    NotFound,
    TunerError,
    WorkersFailed,
    WorkerUnfit,
)
from tuner.settings import Settings
from tuner.storage.url import CREDENTIALS, with_password
from tuner.worker.children import signal_name
from tuner.worker.orders import Orders

POLL_SECONDS = 0.05
DISMISS_SECONDS = 5.0  # a worker that waits for orders ends within this
_TAIL_BYTES = 8192  # of a log, to find its last line in

_ERRORS: dict[int, type[TunerError]] = {
    error.exit_code: error
    for error in (
        TunerError,
        InvalidInput,
        NotFound,
        DatabaseError,
        DataError,
        ArtifactError,
        WorkersFailed,
        WorkerUnfit,
    )
}


@dataclass(frozen=True, kw_only=True)
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path


class LocalWorkers:
    """Some worker processes that serve the same studies. A context: left before `serve`, they end and leave nothing."""

    def __init__(
        self,
        *,
        settings: Settings,
        slots: int,  # 0: as many as pay, on GPUs
        device: str = "auto",
        hang_seconds: float | None = None,  # None: the worker's own
        detached: bool = False,
        options: Sequence[str] = (),  # of `tuner` itself: -v, -q
    ) -> None:
        self._command = [sys.executable, "-P", "-m", "tuner", *options, "worker", "start", "--await-orders"]
        # -P: whatever.py in the folder where somebody typed `tuner launch` is none of ours.
        self._command += ["--slots", str(slots or "auto"), "--device", device]
        if hang_seconds is not None:
            self._command += ["--hang-limit", str(hang_seconds)]
        if not detached:
            self._command.append("--stop-with-stdin")
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in CREDENTIALS},
            "TUNER_HOME": str(settings.home),
            "TUNER_ARTIFACTS": settings.artifact_url or str(settings.artifacts),
        }
        self._logs = settings.artifacts / "workers"
        self._detached = detached
        self._ordered = False
        self._workers: list[_Worker] = []
        self._signals_sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of them: those that serve go on if detached, else they end by themselves, as told to once."""
        if self._ordered:
            self.close()
        else:
            self._dismiss()

    def start(self, workers: int) -> None:
        """Starts so many workers, which get ready and wait for orders.

        Raises ArtifactError where their logs cannot be written.
        """
        for _ in range(workers):
            with _new_log(self._logs) as log:
                process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C of the terminal is for the launcher, which passes it on
                )
            self._workers.append(_Worker(process=process, log=Path(log.name)))

    def serve(self, studies: Sequence[str], database_url: str) -> None:
        """Has them train the trials of these studies, in their order."""
        self._ordered = True
        orders = Orders(database_url=with_password(database_url, os.environ), studies=list(studies))
        for worker in self._workers:
            with contextlib.suppress(BrokenPipeError):  # it has ended, which is seen like every other end
                _pipe(worker).write(orders.line)
                _pipe(worker).flush()
        if self._detached:
            self.close()

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(worker.process.poll() is None for worker in self._workers)

    @property
    def logs(self) -> list[Path]:
        return [worker.log for worker in self._workers]

    def failures(self) -> Iterator[TunerError]:
        """What those that ended badly died of, in the order in which they were started."""
        for worker in self._workers:
            code = worker.process.poll()
            if code:
                yield _failure(code, worker.log)

    def failure(self) -> TunerError:
        """Why the workers are gone before their work was done: the first one's error."""
        return next(self.failures(), WorkersFailed("the workers ended before the study did"))

    def terminate(self) -> None:
        """First: let them finish the running epochs and give their trials back. Again: at once. Then: kill."""
        self._signals_sent += 1
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM if self._signals_sent < 3 else signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Waits for all to end, but no longer than that; whether they have."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return not self.running

    def close(self) -> None:
        """Lets go of the workers: attached ones that still run end by themselves, as told to once."""
        for worker in self._workers:
            with contextlib.suppress(BrokenPipeError):  # orders that nobody has read
                _pipe(worker).close()

    def _dismiss(self) -> None:
        """Ends those that wait for orders, with all that they started, and removes their logs."""
        self.terminate()
        self.close()
        self.wait(DISMISS_SECONDS)
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)  # the fork server ends no sooner than it has torch
            worker.process.wait()
            worker.log.unlink(missing_ok=True)


def _pipe(worker: _Worker) -> IO[bytes]:
    assert worker.process.stdin is not None  # as `start` made it
    return worker.process.stdin


def _new_log(folder: Path) -> BinaryIO:
    """A file of its own for each worker, also where launchers on several machines share the folder."""
    stamp, number = time.strftime("%Y%m%d-%H%M%S"), 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                return (folder / f"{stamp}-{number}.log").open("xb")
            except FileExistsError:
                number += 1
    except OSError as error:
        raise ArtifactError(f"cannot write workers' logs to {folder}: {error.strerror}") from error


def _failure(code: int, log: Path) -> TunerError:
    """As the worker itself would have raised it, where it ended by a documented code."""
    last = _last_line(log)
    if code in _ERRORS and last.startswith("tuner: "):
        return _ERRORS[code](last.removeprefix("tuner: "))
    if code < 0:  # what it said last has nothing to do with it
        return WorkersFailed(f"a worker was killed by {signal_name(-code)} (log: {log})")
    return WorkersFailed(f"a worker ended with code {code}: {last or 'it said nothing'} (log: {log})")


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
