"""A worker: one process that claims trials and has its children train them.

It reads as a lifecycle: claim, train, report, give back. The loop waits on sockets, its clock and signals only (and on
the fork server, while that starts); whatever needs the database or the artifacts is asked of the storage thread and
answered as an event. It imports no torch and never runs a user's code.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from tuner.errors import ArtifactError, DataError, TunerError, WorkersFailed
from tuner.spec.stacking import Engine
from tuner.states import Outcome, StudyState
from tuner.storage.claims import Held
from tuner.storage.statement_parts import CANCELLED_REASON
from tuner.worker.artifact_thread import ArtifactThread
from tuner.worker.events import (
    ChildLost,
    ChildSays,
    Claimed,
    EngineUnknown,
    Event,
    NothingToClaim,
    NothingToJoin,
    Pruned,
    Refused,
    Renewed,
    StorageFailed,
    Terminate,
    Tick,
)
from tuner.worker.fitness import Fitness
from tuner.worker.lifetime import Ended, Lifetime
from tuner.worker.loop import EventLoop
from tuner.worker.messages import EpochsDone, Finished, Measured, Message, Ready, Unable
from tuner.worker.pool import Pool
from tuner.worker.requests import ClaimNext, Close, Equip, GiveBack, Report, Settle, Tell
from tuner.worker.slots import Slot, Trainer, Work
from tuner.worker.storage_thread import StorageThread
from tuner.worker.timing import EXIT_SECONDS, IDLE_SECONDS, SUSPENDED_SECONDS

log = logging.getLogger("tuner.worker")

# What a child may say that is no fault of its trial.
_MACHINE_FAULTS: dict[str, type[TunerError]] = {"ArtifactError": ArtifactError, "DataError": DataError}


class Supervisor:
    def __init__(
        self, storage: StorageThread | ArtifactThread, loop: EventLoop, pool: Pool, lifetime: Lifetime
    ) -> None:
        self._storage = storage
        self._loop = loop
        self._pool = pool
        self._fitness = Fitness()
        self._life = lifetime
        self._ticked_at = time.monotonic()
        self._devices: dict[int, str] = {}  # trainer -> where it trains
        self._ask_at = 0.0  # clock: when idle slots ask again
        self._nothing_left = False

    def run(self) -> Ended:
        """Works until nothing is left to do or it is told to stop.

        Raises the error that made it impossible to go on, after what ran was given back.
        """
        try:
            self._pool.start()
            self._ticked_at = time.monotonic()  # that took its time
            for event in self._loop.events(self._pool.children):
                self._handle(event)
                if self._life.draining:
                    self._release_all()
                if self._finished():
                    break
        finally:
            self._close()
        return self._life.ended(nothing_left=self._nothing_left)

    def _handle(self, event: Event) -> None:
        match event:
            case ChildSays(trainer=index, message=message):
                self._hear(self._pool.trainers[index], message)
            case ChildLost(trainer=index, reason=reason):
                self._mourn(self._pool.trainers[index], f"its process {reason}", Outcome.CRASHED)
            case Claimed(slot=index):
                self._begin(self._pool.slots[index], event)
            case NothingToJoin(slot=index):
                self._answered(self._pool.slots[index])
            case NothingToClaim(slot=index, ended=ended):
                self._pool.slots[index].asked = 0
                self._ask_at = time.monotonic() + IDLE_SECONDS
                self._nothing_left = ended
            case EngineUnknown(slot=index):
                self._pool.slots[index].asked = 0
                if not self._life.draining:
                    self._pool.slots[index].trainer.begin(self._pool.slots[index], event)
            case Pruned(held=held, epoch=epoch):
                log.info("trial %d pruned after epoch %d", held.number, epoch)
                self._abandon(held)
            case Refused(held=held):
                log.warning("trial %d has ended or was given to another worker: this attempt ends", held.number)
                self._abandon(held)
            case Renewed(states=states):
                self._obey(states)
            case StorageFailed(error=error):
                self._life.fail(error, at_once=True)
            case Tick():
                self._tick()
            case Terminate():
                self._life.terminate()

    # --- trials -----------------------------------------------------------------------------------------------------

    def _ask(self, slot: Slot) -> None:
        """For trials, in an empty slot; for others of the same shape beside those that go on."""
        most = self._life.most(sum(other.asked for other in self._pool.slots))
        slot.ask_again = bool(slot.asked)
        if slot.may_ask and most > 0:
            slot.asked = most
            self._storage.post(ClaimNext(slot=slot.index, most=most, beside=slot.helds))

    def _ask_for_one(self) -> None:
        """One idle slot asks for all: where it gets a trial, the next asks."""
        if not any(slot.asked for slot in self._pool.slots):
            for slot in self._pool.slots:
                if slot.may_ask and not slot.works:
                    self._ask(slot)
                    return

    def _answered(self, slot: Slot) -> None:
        """Trials may have ended since the slot asked."""
        slot.asked = 0
        if slot.ask_again:
            self._ask(slot)

    def _begin(self, slot: Slot, claimed: Claimed) -> None:
        self._life.began(len(claimed.trials))
        if self._life.draining:
            for trial in claimed.trials:
                self._storage.post(GiveBack(held=trial.claim.held, death=None, reason=self._life.why))
        else:
            for held in (trial.claim.held for trial in claimed.trials):
                log.info("trial %d, attempt %d, in slot %d", held.number, held.attempt, slot.index)
            slot.trainer.begin(slot, claimed)
        self._answered(slot)
        self._ask_for_one()

    def _hear(self, trainer: Trainer, message: Message) -> None:
        match message:
            case Ready(device=device):
                trainer.up = True
                self._fitness.child_is_up()
                log.info("%s on %s", _names(trainer.slots), device)
                self._devices[trainer.index] = device
                self._storage.post(Equip(device=", ".join(sorted(set(self._devices.values())))))
                self._go_on(trainer)
            case Measured(engine=engine, members=members, fault=fault):
                if fault is not None:
                    log.warning("engines could not be compared: %s", fault)
                self._settle(trainer, Engine(name=engine, members=members))
                self._go_on(trainer)
            case Unable(trial_id=None, error=error, reason=reason):
                for slot in trainer.slots:
                    slot.measuring = None
                self._life.fail(_MACHINE_FAULTS.get(error, WorkersFailed)(reason))
            case EpochsDone() | Finished() | Unable():
                for slot, work in trainer.works:
                    if work.is_meant_by(message):
                        self._hear_of(slot, work, message)
                        return

    def _hear_of(self, slot: Slot, work: Work, message: EpochsDone | Finished | Unable) -> None:
        match message:
            case EpochsDone(curve=curve, checkpoint=name):
                self._fitness.prove()
                if not work.over:
                    log.debug("trial %d trained epoch %d", work.held.number, max(curve))
                    checkpoint = work.stored_checkpoint(name)
                    self._storage.post(Report(held=work.held, curve=curve, checkpoint=checkpoint))
            case Finished(outcome=None):
                self._give_back(slot, work, reason=work.why_released)
            case Finished(outcome=Outcome.OUT_OF_MEMORY as outcome, reason=reason) if work.had_company:
                self._fitness.prove()  # for what fits
                self._shrink(slot, reason or outcome)
            case Finished(outcome=Outcome.CRASHED as outcome, reason=reason) if (
                len(slot.trainer.works) > 1 or not self._fitness.proven
            ):
                self._mourn(slot.trainer, reason or "its training crashed", outcome)
            case Finished(outcome=Outcome() as outcome, reason=reason, attributes=attributes):
                if outcome is not Outcome.CRASHED:
                    self._fitness.prove()
                if not work.over:
                    log.info("trial %d %s%s", work.held.number, outcome, f": {reason}" if reason else "")
                    self._storage.post(Tell(held=work.held, outcome=outcome, reason=reason, attributes=attributes))
                if outcome in (Outcome.CRASHED, Outcome.OUT_OF_MEMORY):
                    self._pool.replace(slot.trainer)  # its memory, or its CUDA context, is not to be trusted
                self._free(slot, work)
            case Unable(error=error, reason=reason):
                if not work.over:
                    self._life.fail(_MACHINE_FAULTS.get(error, WorkersFailed)(reason))
                self._give_back(slot, work, reason=reason)

    def _give_back(self, slot: Slot, work: Work, *, reason: str | None) -> None:
        if not work.over:
            self._storage.post(GiveBack(held=work.held, death=None, reason=reason))
        self._free(slot, work)

    def _free(self, slot: Slot, work: Work) -> None:
        slot.works.remove(work)
        self._go_on(slot.trainer, slot)

    def _go_on(self, trainer: Trainer, *freed: Slot) -> None:
        """Something has ended, in these slots or in all of them."""
        was_open = trainer.open
        trainer.go_on()
        for slot in freed if freed and was_open else trainer.slots:
            self._ask(slot)

    def _settle(self, trainer: Trainer, engine: Engine | None) -> None:
        for slot in trainer.slots:
            if slot.measuring is not None:
                self._storage.post(Settle(study_id=slot.measuring, engine=engine))
                slot.measuring = None

    def _abandon(self, held: Held) -> None:
        for slot, work in self._pool.works:
            if work.held == held:
                slot.abandon(work)

    def _obey(self, states: Mapping[int, StudyState | None]) -> None:
        """What was decided about the studies elsewhere."""
        for slot, work in self._pool.works:
            if work.over:
                continue
            match states.get(work.held.study_id, StudyState.RUNNING):
                case None:
                    log.warning("the study of trial %d was deleted", work.held.number)
                    slot.abandon(work)
                case StudyState.CANCELLED:
                    cancelled = Tell(held=work.held, outcome=Outcome.CANCELLED, reason=CANCELLED_REASON, attributes={})
                    self._storage.post(cancelled)
                    slot.abandon(work)
                case StudyState.PAUSED:
                    slot.release(work, "the study was paused")

    # --- children ---------------------------------------------------------------------------------------------------

    def _mourn(self, trainer: Trainer, reason: str, death: Outcome) -> None:
        """A child is gone, or hangs: another takes its place, and its trials go on from their last checkpoints.

        Of several that it trained none is to blame yet: they go on in stacks of half as many, down to each alone.
        Whether a trial that died so often is given up is decided by whoever claims it next.
        """
        log.warning("%s: %s", _names(trainer.slots), reason)
        if not trainer.up and (unfit := self._fitness.child_died_early(reason)) is not None:
            self._life.fail(unfit)
        self._settle(trainer, None)
        self._pool.replace(trainer)
        trials = len(trainer.works)
        is_trial_lost = any(not work.over for _, work in trainer.works)
        for slot in trainer.slots:
            going, stack = [work for work in slot.works if not work.over], len(slot.works)
            slot.works.clear()
            for work in going:
                if trials == 1:
                    self._storage.post(GiveBack(held=work.held, death=death, reason=reason))
                else:
                    why = f"{reason}; it trained {trials} trials, which go on in smaller stacks"
                    self._give_to_smaller(work, stack, why)
        if is_trial_lost and (unfit := self._fitness.died(reason)) is not None:
            self._life.fail(unfit)
        self._go_on(trainer)

    def _shrink(self, slot: Slot, reason: str) -> None:
        """Memory does not suffice for a slot's trials beside each other, or beside those of others, which go on."""
        log.warning("slot %d: %s", slot.index, reason)
        stack, trials = len(slot.works), len(slot.trainer.works)
        for work in slot.works:
            if not work.over:
                why = f"{reason}; its process trained {trials} trials, and this one goes on in a smaller stack"
                self._give_to_smaller(work, stack, why)
            slot.abandon(work)  # it may be one that had not begun
        slot.works.clear()
        if not slot.trainer.at_work:
            self._pool.replace(slot.trainer)  # its memory is not to be trusted
        self._go_on(slot.trainer)

    def _give_to_smaller(self, work: Work, stack: int, why: str) -> None:
        """Gives back a trial that was in a stack of so many: to be trained in one of half as many, or all alone."""
        self._storage.post(GiveBack(held=work.held, death=None, reason=why, largest_stack=max(1, stack // 2)))

    # --- the worker's own life --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked_at > SUSPENDED_SECONDS:
            log.warning("this machine, or this worker, stood still for %.0f s", now - self._ticked_at)
            for trainer in self._pool.trainers:
                trainer.child.spare()
        self._ticked_at = now
        if now >= self._ask_at:
            self._ask_for_one()
        for trainer in self._pool.trainers:
            silent = trainer.child.hung_for()
            if silent is not None:
                self._mourn(trainer, f"made no step for {silent:.0f} s", Outcome.TIMED_OUT)
            for slot in self._pool.grow(trainer, now):
                self._ask(slot)
        for slot in self._pool.slots:
            slot.hurry(now)
        self._life.tick(now)

    def _release_all(self) -> None:
        for slot, work in self._pool.works:
            slot.release(work, self._life.why)
        for trainer in self._pool.trainers:
            waiting = [order for _, order in trainer.waiting if isinstance(order, Claimed)]
            trainer.waiting.clear()
            for held in (trial.claim.held for claimed in waiting for trial in claimed.trials):
                self._storage.post(GiveBack(held=held, death=None, reason=self._life.why))

    def _finished(self) -> bool:
        if self._life.at_once:
            return True
        if any(slot.busy for slot in self._pool.slots):
            return False
        return self._life.done or self._nothing_left

    def _close(self) -> None:
        """Ends the children, then gives back whatever they trained: from the last checkpoint, without a death."""
        self._pool.kill()
        failure = self._life.failure
        self._storage.post(Close(reason=None if failure is None else str(failure)))
        self._storage.join(EXIT_SECONDS + self._life.grace())  # for checkpoints that are being uploaded


def _names(slots: Sequence[Slot]) -> str:
    numbers = ", ".join(str(slot.index) for slot in slots)
    return f"slot {numbers}" if len(slots) == 1 else f"slots {numbers}"
