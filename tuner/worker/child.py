"""A child process: trains one trial after the other. It knows no database and holds no credentials.

How it trains is not known here, and no torch: that is a `Training`, named by the worker's options.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

from tuner.errors import ArtifactError, DataError, TunerError
from tuner.states import Outcome
from tuner.training.progress import Epoch, Phase, Progress, Result, Stop
from tuner.worker.messages import EpochsDone, Finished, Inbox, Message, Ready, StopTrial, Train, Unable, encode
from tuner.worker.progress import SharedProgress
from tuner.worker.timing import REPORT_SECONDS


class Training(Protocol):
    """Trains trials, one after the other. Made once a child, from the worker's device and the child's slot; that
    raises TunerError where there is no such device.
    """

    @property
    def device(self) -> str:
        """ "cpu", "cuda:1"."""

    def __call__(
        self,
        trial: Train,
        *,
        stop: Callable[[], Stop],
        report: Callable[[Epoch, Path | None], None],
        progress: Progress,
    ) -> Result:
        """Trains from the first epoch, or from the checkpoint `trial.resume`, to the last or until told to stop.

        Each epoch is reported, with its checkpoint (a file in `trial.folder`) where there is one. `progress` moves
        at every step. Raises ArtifactError or DataError where this machine is at fault, and not the trial.
        """


def main(sock: socket.socket, progress: SharedProgress, training: str, device: str, slot: int) -> None:
    """The life of a child; ends when its supervisor is gone. `training` names a Training: "package.module:Name"."""
    os.setsid()  # so that it can be killed with all that users' code may start
    with contextlib.suppress(OSError):  # where memory runs out, the system is to end this one and not the supervisor
        Path("/proc/self/oom_score_adj").write_text("500")
    connection = _Connection(sock)
    threading.Thread(target=connection.listen, daemon=True).start()
    try:
        train: Training = resolve_name(training)(device, slot)
    except TunerError as error:
        connection.send(Unable(trial_id=None, attempt=None, error=type(error).__name__, reason=str(error)))
        return
    progress.enter(Phase.IDLE)
    connection.send(Ready(device=train.device))
    while True:
        trial = connection.next_trial()
        ending = _run(trial, train, connection, progress)
        progress.enter(Phase.IDLE)
        connection.end(trial, ending)


class _Connection:
    """The socket to the supervisor: a thread listens, so that a stop is seen in the middle of an epoch."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._trials: queue.SimpleQueue[Train] = queue.SimpleQueue()
        self._stops: dict[tuple[int, int], Stop] = {}

    def listen(self) -> None:
        inbox = Inbox(self._socket)
        try:
            while True:
                for message in inbox.read():
                    match message:
                        case Train():
                            self._trials.put(message)
                        case StopTrial(trial_id=trial, attempt=attempt, after_epoch=after_epoch):
                            self._stops[trial, attempt] = Stop.AFTER_EPOCH if after_epoch else Stop.NOW
        finally:  # whatever ends this thread: a child without its supervisor must not go on
            os.killpg(0, signal.SIGKILL)

    def next_trial(self) -> Train:
        return self._trials.get()

    def stop(self, trial: Train) -> Stop:
        return self._stops.get((trial.trial_id, trial.attempt), Stop.GO_ON)

    def end(self, trial: Train, ending: Finished | Unable) -> None:
        self._stops.pop((trial.trial_id, trial.attempt), None)
        self.send(ending)

    def send(self, message: Message) -> None:
        try:
            self._socket.sendall(encode(message))
        except OSError:
            os.killpg(0, signal.SIGKILL)


class _Reporter:
    """Sends epochs as they end; those shorter than REPORT_SECONDS go together."""

    def __init__(self, trial: Train, connection: _Connection) -> None:
        self._trial, self._connection = trial, connection
        self._curve: dict[int, float] = {}
        self._sent = time.monotonic()

    def __call__(self, epoch: Epoch, checkpoint: Path | None) -> None:
        figures = "  ".join(f"{name} {value:.5g}" for name, value in epoch.metrics.items())
        _log(f"epoch {epoch.epoch}  {figures}  {epoch.seconds:.2f} s")
        self._curve[epoch.epoch] = epoch.value
        if checkpoint is not None or time.monotonic() - self._sent >= REPORT_SECONDS:
            self.flush(checkpoint)

    def flush(self, checkpoint: Path | None = None) -> None:
        if self._curve:
            self._connection.send(
                EpochsDone(
                    trial_id=self._trial.trial_id,
                    attempt=self._trial.attempt,
                    curve=self._curve,
                    checkpoint=checkpoint.name if checkpoint else None,
                )
            )
            self._curve = {}
        self._sent = time.monotonic()


def _run(trial: Train, train: Training, connection: _Connection, progress: Progress) -> Finished | Unable:
    """Trains one trial to its end, whatever that is; returns the message that says so."""
    outcome: Outcome | None
    attributes: dict[str, int] = {}
    try:
        _redirect_output(Path(trial.log))
        _log(f"trial {trial.number}, attempt {trial.attempt}, on {train.device}")
        reporter = _Reporter(trial, connection)
        result = train(trial, stop=lambda: connection.stop(trial), report=reporter, progress=progress)
        reporter.flush()
        outcome, reason = result.outcome, result.reason
        attributes = {"parameters": result.parameters}
    except (ArtifactError, DataError) as error:
        _log(str(error))
        return Unable(trial_id=trial.trial_id, attempt=trial.attempt, error=type(error).__name__, reason=str(error))
    except Exception as error:
        _log(traceback.format_exc())
        outcome, reason = Outcome.CRASHED, _one_line(error)
    _log(f"{outcome or 'stopped'}" + (f": {reason}" if reason else ""))
    return Finished(
        trial_id=trial.trial_id, attempt=trial.attempt, outcome=outcome, reason=reason, attributes=attributes
    )


def _redirect_output(log: Path) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    except OSError as error:
        raise ArtifactError(f"cannot write the log {log}: {error.strerror}") from error


def _log(line: str) -> None:
    # A line that is lost to a full disk is no reason to lose a trial.
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
        sys.stdout.flush()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
