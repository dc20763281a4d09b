"""A slot of a worker: a child process, and the trials that it trains together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tuner.storage.artifacts import TrialArtifacts
from tuner.storage.claims import Held
from tuner.worker.children import Child
from tuner.worker.events import Assigned, Claimed, EngineUnknown
from tuner.worker.messages import Begin, EpochsDone, Finished, Measure, StopTrial, Train, Unable
from tuner.worker.timing import DRAIN_SECONDS


@dataclass
class Work:
    """A trial in a slot."""

    held: Held
    files: TrialArtifacts
    released_at: float | None = None  # clock: told to finish its epoch and be given back
    why_released: str | None = None
    hurried: bool = False  # and then, to stop at its next step
    over: bool = False  # pruned, cancelled or lost: whatever its training still says is dropped

    def is_meant_by(self, message: EpochsDone | Finished | Unable) -> bool:
        """A child may still speak of trials before."""
        return (message.trial_id, message.attempt) == (self.held.trial_id, self.held.attempt)

    def stored_checkpoint(self, name: str | None) -> str | None:
        """The path that the database keeps for a checkpoint of this attempt."""
        return None if name is None else self.files.relative(self.files.attempt(self.held.attempt) / name)


@dataclass
class Slot:
    index: int
    child: Child
    up: bool = False  # the child said that it is ready
    works: list[Work] = field(default_factory=list)
    asked: int = 0  # trials that a claim on its way may bring
    ask_again: bool = False  # a trial has ended since
    measuring: int | None = None  # the study for which its child measures engines

    @property
    def may_ask(self) -> bool:
        return self.up and not self.asked and self.measuring is None

    @property
    def busy(self) -> bool:
        return bool(self.works) or bool(self.asked) or self.measuring is not None

    @property
    def helds(self) -> tuple[Held, ...]:
        return tuple(work.held for work in self.works)

    def begin(self, claimed: Claimed, artifacts: Path) -> None:
        """Has the child train the trials, from their checkpoints where there are some."""
        works = [_work(trial, claimed.study_folder, artifacts) for trial in claimed.trials]
        message = Begin(
            study_id=claimed.trials[0].claim.held.study_id,
            trials=[_train(*pair, claimed.seed) for pair in zip(claimed.trials, works, strict=True)],
        )
        if self.works:
            self.child.send(message)  # it is in the middle of something
        else:
            self.child.begin(message)
        self.works += works

    def measure(self, unknown: EngineUnknown) -> None:
        self.measuring = unknown.study_id
        self.child.begin(Measure(study_id=unknown.study_id, configs=unknown.configs))

    def abandon(self, work: Work) -> None:
        """Ends the training at its next step; what it still says is dropped."""
        work.over = True
        self._stop(work, after_epoch=False)

    def release(self, work: Work, why: str) -> None:
        """Has the child finish its epoch, leave a checkpoint and say so."""
        if work.released_at is None and not work.over:
            work.released_at, work.why_released = time.monotonic(), why
            self._stop(work, after_epoch=True)

    def hurry(self, now: float) -> None:
        """Stops released trials whose epoch has not ended within the grace: they go back to their last checkpoints."""
        for work in self.works:
            if work.released_at is not None and not work.hurried and now - work.released_at >= DRAIN_SECONDS:
                work.hurried = True
                self._stop(work, after_epoch=False)

    def _stop(self, work: Work, *, after_epoch: bool) -> None:
        self.child.send(StopTrial(trial_id=work.held.trial_id, attempt=work.held.attempt, after_epoch=after_epoch))


def _work(trial: Assigned, study_folder: str, artifacts: Path) -> Work:
    held = trial.claim.held
    return Work(held=held, files=TrialArtifacts(root=artifacts, study=study_folder, trial_id=held.trial_id))


def _train(trial: Assigned, work: Work, seed: int) -> Train:
    held, resume = trial.claim.held, trial.claim.checkpoint
    return Train(
        trial_id=held.trial_id,
        attempt=held.attempt,
        number=held.number,
        seed=seed,
        config=trial.config,
        folder=str(work.files.attempt(held.attempt)),
        resume=str(work.files.root / resume) if resume else None,
        log=str(work.files.log(held.attempt)),
    )
