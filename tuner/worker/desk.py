"""A study as a worker serves it: proposes points, judges curves, writes trials. Lives on the storage thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from tuner.search.beginning import sample
from tuner.search.pruners import Pruner
from tuner.spec.stacking import Engine, Group
from tuner.states import Outcome, TrialState
from tuner.storage import claims
from tuner.storage.claims import Claim, Ending, Held, Nothing, Progress, Supply
from tuner.storage.connection import Database
from tuner.storage.history import HISTORY_KEY, HistoryReader
from tuner.storage.studies import StudyRecord, check_version
from tuner.worker.events import Assigned, Claimed, Pruned, Refused
from tuner.worker.judge import Judge
from tuner.worker.plan import Plan
from tuner.worker.requests import GiveBack

log = logging.getLogger("tuner.worker")


@dataclass
class _Trial:
    """What is known of a trial in training."""

    shape: str | None = None
    largest_stack: int | None = None  # so many may train together where it is among them
    curve: dict[int, float] = field(default_factory=dict)  # epoch, from 1 -> value, as reported
    attributes: dict[str, Any] = field(default_factory=dict)  # the pruner's: rungs reached


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Companions for the trials of a slot."""

    shape: str
    largest_stack: int | None
    numbers: Sequence[int]  # any of these
    most: int
    proposals: bool  # and of new numbers as far as the sampler proposes the shape


class StudyDesk:
    def __init__(self, study: StudyRecord, sweep: Callable[[str], None]) -> None:
        """`sweep` removes the files that a stored checkpoint makes useless.

        Raises InvalidInput for a study that this version of tuner must not touch or does not understand.
        """
        check_version(study)
        self.study = study
        self._sweep = sweep
        self._spec = spec = study.spec
        self._reader = HistoryReader(study.study_id, spec.objective.direction)
        self._judge = Judge(Pruner(spec.search, spec.epochs), self._reader)
        self._plan = Plan(study, self._reader)
        self._supply = Supply()  # as the last claim has seen it
        self._trials: dict[Held, _Trial] = {}

    @property
    def idle(self) -> bool:
        return not self._trials

    def settle(self, engine: Engine) -> None:
        """By this engine the study is trained."""
        self.study = replace(self.study, engine=engine)
        self._plan = Plan(self.study, self._reader)

    def to_measure(self) -> Sequence[Group]:
        """By which engines are compared."""
        return sample(self._spec, compared=self.study.compared).groups

    # --- claims -----------------------------------------------------------------------------------------------------

    def claim(self, db: Database, worker_id: UUID, request: UUID) -> Assigned | Refused | Nothing:
        """The next trial, for a slot that has none."""
        claimed, self._supply = claims.claim(db, self.study.study_id, worker_id, request)
        if isinstance(claimed, Nothing):
            return claimed
        return next(iter(self._begin(db, claimed)), Refused(held=claimed[0].held))

    def wanted(self, db: Database, beside: Sequence[Held], most: int) -> Wanted | None:
        """What may join the trials of a slot, so that each slot gets its share; None where nothing ever can."""
        trial = next((self._trials[held] for held in beside if held in self._trials), None)
        engine = self.study.engine
        if trial is None or trial.shape is None or engine is None or engine.members == 1:
            return None
        self._supply = claims.supply(db, self.study.study_id)  # others have claimed since
        largest = min(engine.members, self._supply.share, trial.largest_stack or engine.members)
        if self._plan.learns:
            largest = min(largest, self._spec.search.parallel_proposals)
        most = min(most, largest - len(beside))
        if most <= 0:
            return None
        return Wanted(
            shape=trial.shape,
            largest_stack=trial.largest_stack,
            numbers=self._numbers(db, trial.shape, most),
            most=most,
            proposals=self._plan.learns and trial.largest_stack is None,
        )

    def _numbers(self, db: Database, shape: str, most: int) -> Sequence[int]:
        if not self._plan.learns:
            return self._plan.of_shape(shape, self._supply, most)
        waiting = self._reader.waiting(db) if self._supply.waiting else []
        sampled = (trial for trial in waiting if HISTORY_KEY in trial.system_attrs)
        return [trial.number for trial in sampled if self._plan.of_point(trial.params).shape == shape]

    def join(
        self, db: Database, worker_id: UUID, beside: Sequence[Held], wanted: Wanted, request: UUID
    ) -> Sequence[Assigned]:
        """Claims companions of the numbers that are wanted."""
        claimed, self._supply = claims.claim(
            db,
            self.study.study_id,
            worker_id,
            request,
            most=wanted.most,
            numbers=wanted.numbers,
            beside=[held for held in beside if held in self._trials],  # others were lost: they belong to other stacks
            largest_stack=wanted.largest_stack,
        )
        return () if isinstance(claimed, Nothing) else self._begin(db, claimed)

    @property
    def next_number(self) -> int:
        return self._supply.next

    def join_proposed(
        self, db: Database, worker_id: UUID, beside: Sequence[Held], wanted: Wanted, number: int, request: UUID
    ) -> Sequence[Assigned]:
        """Claims this number, the next one, if its proposal has the shape that is wanted."""
        if self._plan.expect(db, number).shape != wanted.shape:
            return ()
        return self.join(db, worker_id, beside, replace(wanted, numbers=(number,), most=1), request)

    def _begin(self, db: Database, claimed: Sequence[Claim]) -> list[Assigned]:
        """The trials with their points; without those that were lost meanwhile."""
        sampled = any(claim.sampled for claim in claimed)
        known = {trial.number: trial for trial in self._reader.read(db).running} if sampled else {}
        proposals = {claim.held: self._plan.proposal(db, claim.held.number) for claim in claimed if not claim.sampled}
        points = {held: (proposal.planned.point, proposal.looked_at) for held, proposal in proposals.items()}
        written = claims.write_points(db, self._spec.space, points)
        begun = []
        for claim in claimed:
            trial = _Trial(largest_stack=claim.largest_stack)
            if claim.sampled:
                own = known.get(claim.held.number)
                if own is None:
                    continue  # the study was deleted just now
                planned = self._plan.of_point(own.params)
                trial.curve, trial.attributes = dict(own.intermediate_values), dict(own.system_attrs)
            elif claim.held in written:
                planned = proposals[claim.held].planned
            else:  # this worker stood still meanwhile
                log.warning("trial %d has ended or was given to another worker before it began", claim.held.number)
                self._refused(db, claim.held)
                continue
            trial.shape = planned.shape
            self._trials[claim.held] = trial
            begun.append(Assigned(claim=claim, config=planned.config))
        return begun

    def claimed(self, slot: int, trials: Sequence[Assigned]) -> Claimed:
        return Claimed(slot=slot, study_folder=self.study.folder, seed=self._spec.search.seed, trials=trials)

    def look_ahead(self, db: Database, highest: int) -> None:
        """Finds points of numbers that come after `highest`, while what was claimed trains."""
        self._plan.look_ahead(db, self._supply, max(highest + 1, self._supply.next))

    @property
    def crowded(self) -> bool:
        return self._plan.crowded

    # --- what trials say --------------------------------------------------------------------------------------------

    def report(
        self, db: Database, held: Held, curve: Mapping[int, float], checkpoint: str | None
    ) -> Pruned | Refused | None:
        """Stores epochs in their order until one is to be the last: that one and PRUNED are a single write."""
        trial = self._trials.get(held)
        if trial is None:
            return None  # it had been pruned when these epochs were trained
        # Nothing is remembered before it is written: after a lost connection all of this is done again.
        seen = replace(trial, curve=dict(trial.curve), attributes=dict(trial.attributes))
        written: dict[int, float] = {}
        for epoch, value in curve.items():
            judged = epoch in seen.curve  # by an earlier attempt: this is the same epoch trained again
            written[epoch] = seen.curve[epoch] = value
            if not judged and self._hopeless(db, held, seen, epoch):
                # A checkpoint of a later epoch holds weights that this trial never came to.
                own = checkpoint if epoch == max(curve) else None
                progress = Progress(curve=written, checkpoint=own, attributes=seen.attributes)
                pruned = self._end(db, held, seen, Outcome.PRUNED, f"pruned after epoch {epoch}", {}, progress)
                return Pruned(held=held, epoch=epoch) if pruned else self._refused(db, held)
        if claims.report(db, held, Progress(curve=written, checkpoint=checkpoint, attributes=seen.attributes)):
            self._trials[held] = seen
            self._judge.learn(held, seen.curve, seen.attributes, TrialState.RUNNING)
            if checkpoint is not None:
                self._sweep(checkpoint)
            return None
        return self._refused(db, held)

    def _refused(self, db: Database, held: Held) -> Refused:
        claims.adopt(db, held)  # perhaps it was not another attempt, but another program that has ended the trial
        self._trials.pop(held, None)  # last: after a lost connection the refusal must be met again
        return Refused(held=held)

    def _hopeless(self, db: Database, held: Held, trial: _Trial, epoch: int) -> bool:
        decision = self._judge.decide(db, held, trial.curve, trial.attributes, epoch)
        trial.attributes.update(decision.attributes)
        return decision.prune

    def tell(
        self, db: Database, held: Held, outcome: Outcome, reason: str | None, attributes: Mapping[str, Any]
    ) -> Refused | None:
        trial = self._trials.get(held)
        if trial is None:
            return None  # it had been pruned when its training ended
        told = self._end(db, held, trial, outcome, reason, attributes, Progress())
        return None if told else self._refused(db, held)

    def give_back(self, db: Database, order: GiveBack) -> None:
        if order.held in self._trials:
            claims.give_back(db, order.held, death=order.death, reason=order.reason, largest_stack=order.largest_stack)
            del self._trials[order.held]

    def _end(
        self,
        db: Database,
        held: Held,
        trial: _Trial,
        outcome: Outcome,
        reason: str | None,
        attributes: Mapping[str, Any],
        progress: Progress,
    ) -> bool:
        epoch, value = self._standing(trial.curve)
        ending = Ending(
            outcome=outcome,
            value=value if outcome in (Outcome.COMPLETE, Outcome.PRUNED) else None,
            reason=reason,
            attributes={**attributes, "best_epoch": epoch},
        )
        if not claims.tell(db, held, ending, progress):
            return False
        self._judge.learn(held, trial.curve, trial.attributes, outcome.state)
        del self._trials[held]
        return True

    def _standing(self, curve: Mapping[int, float]) -> tuple[int | None, float | None]:
        """The epoch, and its value, that stands for a trial: of equal ones the first."""
        if not curve:
            return None, None
        epochs = sorted(curve)
        if self._spec.objective.value == "last":
            return epochs[-1], curve[epochs[-1]]
        choose = max if self._spec.objective.direction == "maximize" else min
        epoch = choose(epochs, key=curve.__getitem__)
        return epoch, curve[epoch]
