"""What a child trains at a time: attempts that begin, report and end one by one, whatever trains them together."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from tuner.errors import ArtifactError, DataError
from tuner.spec.config import TrialConfig
from tuner.states import Outcome
from tuner.training.progress import Epoch, Phase, Progress, Result, Run, Stop
from tuner.worker.mailbox import Mailbox
from tuner.worker.messages import Begin, EpochsDone, Finished, Message, Train, Unable
from tuner.worker.timing import LONGEST_REPORT_SECONDS, REPORT_SECONDS

TrainRuns = Callable[[Sequence[Run], Callable[[], Sequence[Run]], Progress], None]


class Session:
    """From the first trial that a child trains until it trains none, or none of that study."""

    def __init__(self, mailbox: Mailbox, progress: Progress, device: str, *, mixes_studies: bool) -> None:
        self._mailbox, self._progress, self._device = mailbox, progress, device
        self._mixes_studies = mixes_studies
        self._going: list[Attempt] = []  # attempts that have not ended

    def run(self, order: Begin, train: TrainRuns) -> None:
        """Trains the trials, and those that arrive meanwhile, to their ends, whatever these are."""
        study_id = None if self._mixes_studies else order.study_id
        try:
            train(self._begin(order.trials), lambda: self._begin(self._mailbox.arrived(study_id)), self._progress)
            for attempt in [*self._going]:
                attempt.crash("its training told no end")
        except (ArtifactError, DataError) as error:
            for attempt in [*self._going]:
                attempt.give_up(error)
        except Exception as error:
            for attempt in [*self._going]:
                attempt.write(traceback.format_exc())
                attempt.crash(one_line(error))

    def _begin(self, trials: Sequence[Train]) -> list[Attempt]:
        """Raises ArtifactError where logs cannot be written: of those that have begun and of these, none can go on."""
        attempts = [Attempt(trial, self, self._mailbox) for trial in trials]
        self._going += attempts
        for attempt in attempts:
            attempt.open_log(self._device)
        return attempts

    @property
    def report_seconds(self) -> float:
        """Between two reports of an attempt: many short epochs of many attempts must not flood the database."""
        return min(REPORT_SECONDS * len(self._going), LONGEST_REPORT_SECONDS)

    def end(self, attempt: Attempt, last: Message) -> None:
        self._going.remove(attempt)
        if not self._going:
            self._progress.enter(Phase.IDLE)
        self._mailbox.send(last)


class Attempt:
    """A `Run`: writes what it has to say to its own log, and sends it."""

    def __init__(self, trial: Train, session: Session, mailbox: Mailbox) -> None:
        self._trial, self._session, self._mailbox = trial, session, mailbox
        self._log: io.FileIO | None = None
        self._curve: dict[int, float] = {}  # epochs that were not sent yet
        self._sent_at = time.monotonic()

    def open_log(self, device: str) -> None:
        """What the process prints from now on goes there too. Raises ArtifactError."""
        log = Path(self._trial.log)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = io.FileIO(log, "a")
            os.dup2(self._log.fileno(), 1)
            os.dup2(self._log.fileno(), 2)
        except OSError as error:
            raise ArtifactError(f"cannot write the log {log}: {error.strerror}") from error
        self.write(f"trial {self._trial.number}, attempt {self._trial.attempt}, on {device}")

    # --- what its training sees -------------------------------------------------------------------------------------

    @cached_property
    def config(self) -> TrialConfig:
        return TrialConfig.model_validate_json(self._trial.config)

    @property
    def seed(self) -> int:
        return self._trial.seed

    @property
    def number(self) -> int:
        return self._trial.number

    @property
    def lane(self) -> int:
        return self._trial.lane

    @property
    def folder(self) -> Path:
        return Path(self._trial.folder)

    @property
    def resume(self) -> Path | None:
        return Path(self._trial.resume) if self._trial.resume else None

    def stop(self) -> Stop:
        return self._mailbox.stop(self._trial)

    def report(self, epoch: Epoch, checkpoint: Path | None) -> None:
        figures = "  ".join(f"{name} {value:.5g}" for name, value in epoch.metrics.items())
        self.write(f"epoch {epoch.epoch}  {figures}  {epoch.seconds:.2f} s")
        self._curve[epoch.epoch] = epoch.value
        if checkpoint is not None or time.monotonic() - self._sent_at >= self._session.report_seconds:
            self._send_epochs(checkpoint)

    def end(self, result: Result) -> None:
        self._send_epochs()
        self._finish(result.outcome, result.reason, {"parameters": result.parameters})

    # --- where it goes wrong ----------------------------------------------------------------------------------------

    def crash(self, reason: str) -> None:
        self._finish(Outcome.CRASHED, reason, {})

    def give_up(self, error: ArtifactError | DataError) -> None:
        """This machine is at fault, and not the trial."""
        self.write(str(error))
        self._close(
            Unable(
                trial_id=self._trial.trial_id,
                attempt=self._trial.attempt,
                error=type(error).__name__,
                reason=str(error),
            )
        )

    def write(self, line: str) -> None:
        # A line that is lost to a full disk is no reason to lose a trial.
        with contextlib.suppress(OSError):
            sys.stdout.flush()  # what was printed before
            if self._log is not None:
                self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n".encode(errors="replace"))

    def _send_epochs(self, checkpoint: Path | None = None) -> None:
        if self._curve:
            self._mailbox.send(
                EpochsDone(
                    trial_id=self._trial.trial_id,
                    attempt=self._trial.attempt,
                    curve=self._curve,
                    checkpoint=checkpoint.name if checkpoint else None,
                )
            )
            self._curve = {}
        self._sent_at = time.monotonic()

    def _finish(self, outcome: Outcome | None, reason: str | None, attributes: Mapping[str, int]) -> None:
        self.write(f"{outcome or 'stopped'}" + (f": {reason}" if reason else ""))
        self._close(
            Finished(
                trial_id=self._trial.trial_id,
                attempt=self._trial.attempt,
                outcome=outcome,
                reason=reason,
                attributes=attributes,
            )
        )

    def _close(self, last: Message) -> None:
        if self._log is not None:
            self._log.close()
        self._mailbox.forget(self._trial)
        self._session.end(self, last)


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500]
