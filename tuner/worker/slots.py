"""A slot of a worker: a child process, and the trial that it trains."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tuner.storage.artifacts import TrialArtifacts
from tuner.storage.claims import Held
from tuner.worker.children import Child
from tuner.worker.events import Claimed
from tuner.worker.messages import EpochsDone, Finished, StopTrial, Train, Unable
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
        """A child may still speak of the trial before."""
        return (message.trial_id, message.attempt) == (self.held.trial_id, self.held.attempt)

    def stored_checkpoint(self, name: str | None) -> str | None:
        """The path that the database keeps for a checkpoint of this attempt."""
        return None if name is None else self.files.relative(self.files.attempt(self.held.attempt) / name)


@dataclass
class Slot:
    index: int
    child: Child
    up: bool = False  # the child said that it is ready
    work: Work | None = None
    asking: bool = False  # a claim is on its way

    @property
    def free(self) -> bool:
        return self.up and self.work is None and not self.asking

    def begin(self, claimed: Claimed, work: Work) -> None:
        """Has the child train the trial, from its checkpoint if there is one."""
        held, resume = claimed.claim.held, claimed.claim.checkpoint
        self.child.begin(
            Train(
                trial_id=held.trial_id,
                attempt=held.attempt,
                number=held.number,
                seed=claimed.seed,
                config=claimed.config,
                folder=str(work.files.attempt(held.attempt)),
                resume=str(work.files.root / resume) if resume else None,
                log=str(work.files.log(held.attempt)),
            )
        )

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
        """Stops a released trial whose epoch has not ended within the grace: it goes back to its last checkpoint."""
        work = self.work
        if work is None or work.hurried or work.released_at is None:
            return
        if now - work.released_at >= DRAIN_SECONDS:
            work.hurried = True
            self._stop(work, after_epoch=False)

    def _stop(self, work: Work, *, after_epoch: bool) -> None:
        self.child.send(StopTrial(trial_id=work.held.trial_id, attempt=work.held.attempt, after_epoch=after_epoch))
