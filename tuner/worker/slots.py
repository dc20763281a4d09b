"""A slot of a worker: the trials that are trained together, by a child process which several slots may share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tuner.storage.artifacts import TrialArtifacts
from tuner.storage.claims import Held
from tuner.worker.children import Child
from tuner.worker.events import Assigned, Claimed, EngineUnknown
from tuner.worker.growth import Growth
from tuner.worker.messages import Begin, EpochsDone, Finished, Measure, StopTrial, Train, Unable
from tuner.worker.timing import DRAIN_SECONDS


@dataclass
class Work:
    """A trial in a slot."""

    held: Held
    files: TrialArtifacts
    alone: bool = False  # it may be what did harm to others: nothing else is to train in its process
    had_company: bool = False  # others trained in its process
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


@dataclass(eq=False)
class Slot:
    index: int
    trainer: Trainer
    works: list[Work] = field(default_factory=list)
    asked: int = 0  # trials that a claim on its way may bring
    ask_again: bool = False  # a trial has ended since
    measuring: int | None = None  # the study for which its child measures engines
    retired: bool = False  # it claims nothing any more

    @property
    def child(self) -> Child:
        return self.trainer.child

    @property
    def may_ask(self) -> bool:
        return self.trainer.open and not self.asked and self.measuring is None and not self.retired

    @property
    def at_work(self) -> bool:
        return bool(self.works) or self.measuring is not None

    @property
    def busy(self) -> bool:
        return self.at_work or bool(self.asked) or any(slot is self for slot, _ in self.trainer.waiting)

    @property
    def helds(self) -> tuple[Held, ...]:
        return tuple(work.held for work in self.works)

    def begin(self, claimed: Claimed, artifacts: Path) -> None:
        """Has the child train the trials, from their checkpoints where there are some."""
        works = [_work(trial, claimed.study_folder, artifacts) for trial in claimed.trials]
        pairs = zip(claimed.trials, works, strict=True)
        message = Begin(
            study_id=claimed.trials[0].claim.held.study_id,
            trials=[_train(trial, work, claimed.seed, self.index) for trial, work in pairs],
        )
        if self.trainer.at_work:
            self.child.send(message)  # it is in the middle of something
        else:
            self.child.begin(message)
        self.works += works
        company = self.trainer.works
        for _, work in company:
            work.had_company |= len(company) > 1

    def measure(self, unknown: EngineUnknown) -> None:
        self.measuring = unknown.study_id
        configs = [group.config.model_dump_json() for group in unknown.groups]
        trials = [group.trials for group in unknown.groups]
        self.child.begin(Measure(study_id=unknown.study_id, configs=configs, trials=trials))

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


@dataclass(eq=False)
class Trainer:
    """A child process and the slots that it serves.

    Where these are several, what is to be done alone waits until the others are through, and they wait for it.
    """

    index: int
    child: Child
    artifacts: Path
    up: bool = False  # the child said that it is ready
    slots: list[Slot] = field(default_factory=list)
    growth: Growth | None = None  # decides how many slots there are
    waiting: list[tuple[Slot, Claimed | EngineUnknown]] = field(default_factory=list)

    @property
    def at_work(self) -> bool:
        return any(slot.at_work for slot in self.slots)

    @property
    def works(self) -> list[tuple[Slot, Work]]:
        return [(slot, work) for slot in self.slots for work in slot.works]

    @property
    def open(self) -> bool:
        """Whether its slots may claim trials."""
        return self.up and not self.waiting and not self._is_reserved

    @property
    def _is_reserved(self) -> bool:
        alone = any(slot.measuring is not None for slot in self.slots) or any(work.alone for _, work in self.works)
        return alone and len(self.slots) > 1

    def begin(self, slot: Slot, order: Claimed | EngineUnknown) -> None:
        """Now, or when the child has nothing else to do."""
        self.waiting.append((slot, order))
        self.go_on()

    def go_on(self) -> None:
        """Begins what has waited for the end of something, in the order in which it came."""
        while self.waiting and self.up:
            slot, order = self.waiting[0]
            is_free = not any(other.at_work for other in self.slots if other is not slot)
            if self._is_reserved or (_is_exclusive(order) and not is_free):
                return
            del self.waiting[0]
            if isinstance(order, Claimed):
                slot.begin(order, self.artifacts)
            else:
                slot.measure(order)


def _is_exclusive(order: Claimed | EngineUnknown) -> bool:
    return isinstance(order, EngineUnknown) or any(_is_alone(trial) for trial in order.trials)


def _is_alone(trial: Assigned) -> bool:
    """Of those with which it did not go well, it is the only one left."""
    return trial.claim.largest_stack == 1


def _work(trial: Assigned, study_folder: str, artifacts: Path) -> Work:
    held = trial.claim.held
    files = TrialArtifacts(root=artifacts, study=study_folder, trial_id=held.trial_id)
    return Work(held=held, files=files, alone=_is_alone(trial))


def _train(trial: Assigned, work: Work, seed: int, lane: int) -> Train:
    held, resume = trial.claim.held, trial.claim.checkpoint
    return Train(
        trial_id=held.trial_id,
        attempt=held.attempt,
        number=held.number,
        lane=lane,
        seed=seed,
        config=trial.config,
        folder=str(work.files.attempt(held.attempt)),
        resume=str(work.files.root / resume) if resume else None,
        log=str(work.files.log(held.attempt)),
    )
