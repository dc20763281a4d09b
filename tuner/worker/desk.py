"""A study as a worker serves it: proposes points, judges curves, writes trials. Lives on the storage thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from tuner.search import LEARNERS, SAMPLERS, History
from tuner.search.pruners import Pruner, with_curve
from tuner.spec.space import Point
from tuner.states import Outcome
from tuner.storage import claims
from tuner.storage.claims import Ending, Held, Nothing, Progress
from tuner.storage.connection import Database
from tuner.storage.history import HistoryReader
from tuner.storage.studies import StudyRecord, check_version
from tuner.worker.events import Claimed, Pruned, Refused


@dataclass(frozen=True, kw_only=True)
class _Proposal:
    """A point for a number that may not be claimed yet, and what the sampler looked at."""

    number: int
    point: Point
    history: Mapping[str, Any]


@dataclass
class _Trial:
    """What is known of a trial in training."""

    curve: dict[int, float] = field(default_factory=dict)  # epoch, from 1 -> value, as reported
    attributes: dict[str, Any] = field(default_factory=dict)  # the pruner's: rungs reached


class StudyDesk:
    def __init__(self, study: StudyRecord, sweep: Callable[[str], None]) -> None:
        """`sweep` removes the files that a stored checkpoint makes useless.

        Raises InvalidInput for a study that this version of tuner must not touch or does not understand.
        """
        check_version(study)
        self._study = study
        self._sweep = sweep
        self._spec = spec = study.spec
        self._reader = HistoryReader(study.study_id, spec.objective.direction)
        self._pruner = Pruner(spec.search, spec.epochs)
        self._trials: dict[Held, _Trial] = {}
        self._ahead: _Proposal | None = None
        self.crowded = False  # others take the numbers that it looks ahead to

    @property
    def idle(self) -> bool:
        return not self._trials

    def claim(self, db: Database, slot: int, worker_id: UUID, request: UUID) -> Claimed | Refused | Nothing:
        claim = claims.claim(db, self._study.study_id, worker_id, request)
        if isinstance(claim, Nothing):
            return claim
        if claim.sampled:
            running = self._reader.read(db).running
            own = next((trial for trial in running if trial.number == claim.held.number), None)
            if own is None:
                return Refused(held=claim.held)  # the study was deleted just now
            point: Point = own.params
            trial = _Trial(curve=dict(own.intermediate_values), attributes=dict(own.system_attrs))
        else:
            trial = _Trial()
            proposal = self._ahead
            self.crowded = proposal is not None and proposal.number != claim.held.number
            if proposal is None or self.crowded:
                proposal = self._propose(db, claim.held.number)
            point = proposal.point
            if not claims.write_point(db, claim.held, self._spec.space, point, proposal.history):
                return self._refused(db, claim.held)
        self._trials[claim.held] = trial
        config = self._spec.space.resolve(point).model_dump_json()
        return Claimed(
            slot=slot, claim=claim, study_folder=self._study.folder, seed=self._spec.search.seed, config=config
        )

    def look_ahead(self, db: Database, highest: int) -> None:
        """Proposes the point that comes after number `highest`, while what was claimed trains.

        It claims nothing: where another worker takes that number, the proposal is dropped.
        """
        learns = self._spec.search.method in LEARNERS  # the others propose in no time
        if learns and (self._ahead is None or self._ahead.number <= highest):
            self._ahead = self._propose(db, highest + 1)

    def _propose(self, db: Database, number: int) -> _Proposal:
        search = self._spec.search
        history = self._reader.read(db) if search.method in LEARNERS else History(direction=self._reader.direction)
        sampled = tuple(other for other in history.running if other.params and other.number != number)
        point = SAMPLERS[search.method](self._spec.space, replace(history, running=sampled), search.seed, number)
        looked_at = {"finished": history.finish_seq, "running": [other.number for other in sampled]}
        return _Proposal(number=number, point=point, history=looked_at)

    def report(
        self, db: Database, held: Held, curve: Mapping[int, float], checkpoint: str | None
    ) -> Pruned | Refused | None:
        """Stores epochs in their order until one is to be the last: that one and PRUNED are a single write."""
        trial = self._trials.get(held)
        if trial is None:
            return None  # it had been pruned when these epochs were trained
        history = self._reader.read(db) if self._pruner.active else None
        # Nothing is remembered before it is written: after a lost connection all of this is done again.
        seen = _Trial(curve=dict(trial.curve), attributes=dict(trial.attributes))
        written: dict[int, float] = {}
        for epoch, value in curve.items():
            judged = epoch in seen.curve  # by an earlier attempt: this is the same epoch trained again
            written[epoch] = seen.curve[epoch] = value
            if history is not None and not judged and self._hopeless(history, held, seen, epoch):
                # A checkpoint of a later epoch holds weights that this trial never came to.
                own = checkpoint if epoch == max(curve) else None
                progress = Progress(curve=written, checkpoint=own, attributes=seen.attributes)
                pruned = self._end(db, held, seen, Outcome.PRUNED, f"pruned after epoch {epoch}", {}, progress)
                return Pruned(held=held, epoch=epoch) if pruned else self._refused(db, held)
        if claims.report(db, held, Progress(curve=written, checkpoint=checkpoint, attributes=seen.attributes)):
            self._trials[held] = seen
            if checkpoint is not None:
                self._sweep(checkpoint)
            return None
        return self._refused(db, held)

    def _refused(self, db: Database, held: Held) -> Refused:
        claims.adopt(db, held)  # perhaps it was not another attempt, but another program that has ended the trial
        self._trials.pop(held, None)  # last: after a lost connection the refusal must be met again
        return Refused(held=held)

    def _hopeless(self, history: History, held: Held, trial: _Trial, epoch: int) -> bool:
        own = next((other for other in history.running if other.number == held.number), None)
        if own is None:
            return False  # no longer ours: the write will be refused
        decision = self._pruner.decide(history, with_curve(own, trial.curve, trial.attributes), epoch)
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

    def give_back(self, db: Database, held: Held, *, death: Outcome | None, reason: str | None) -> None:
        if held in self._trials:
            claims.give_back(db, held, death=death, reason=reason)
            del self._trials[held]

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
