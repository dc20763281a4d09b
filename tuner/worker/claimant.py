"""Claims trials for a worker's slots, from the studies that it serves: alone, or as many as train together.

Every call to the database is tried again until it is answered, with the same request: a lost answer costs no trial.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar
from uuid import UUID, uuid4

from tuner.errors import InvalidInput
from tuner.spec.stacking import Engine, Group
from tuner.states import StudyState
from tuner.storage.claims import Held, Nothing
from tuner.storage.connection import Database
from tuner.storage.retry import until_answered
from tuner.storage.studies import StudyRecord, running_studies, settle_engine
from tuner.worker.desk import StudyDesk
from tuner.worker.events import Assigned, Claimed, EngineUnknown, NothingToClaim, NothingToJoin, Refused, StorageAnswer
from tuner.worker.requests import ClaimNext

log = logging.getLogger("tuner.worker")
Answer = TypeVar("Answer")

MEASURING_DEATHS = 2  # of children that measure a study's engine: then it is settled without

_NOT_NOW = Nothing(state=StudyState.RUNNING)  # but in a moment


class Claimant:
    """`studies` is None to serve all that run."""

    def __init__(
        self,
        db: Database,
        worker_id: UUID,
        studies: Sequence[StudyRecord] | None,
        sweep: Callable[[str], None],
        renew: Callable[[], None],  # renews the worker's leases where that is due
        longest_pause: float,  # seconds between two tries
    ) -> None:
        self.desks: dict[int, StudyDesk] = {}  # study -> what is known of it
        self._db = db
        self._worker_id = worker_id
        self._studies = studies
        self._sweep = sweep
        self._renew = renew
        self._longest_pause = longest_pause
        self._measured: set[int] = set()  # studies whose engine a child is finding out now
        self._deaths: Counter[int] = Counter()  # study -> children that died of that
        self._not_understood: set[int] = set()  # studies of another version of tuner
        self._said: dict[int, StudyState | None] = {}  # study -> state in which nothing could be claimed

    def claim(self, request: ClaimNext) -> StorageAnswer:
        """For an empty slot from the first study that has a trial to give, in the order in which they were named."""
        if request.beside:
            return self._add(request)
        studies = self._studies
        if studies is None:
            studies = self._until_answered(lambda: running_studies(self._db))
        ended = self._studies is not None
        for study in studies:
            answer = self._claim_from(study, request)
            if not isinstance(answer, Nothing):
                return answer
            ended = ended and answer.ended
        return NothingToClaim(slot=request.slot, ended=ended)

    def _claim_from(self, study: StudyRecord, request: ClaimNext) -> StorageAnswer | Nothing:
        desk = self._desk(study)
        if desk is None:
            return Nothing(state=study.state)
        if desk.study.engine is None:
            groups = self._to_measure(study.study_id, desk)
            if groups:
                return EngineUnknown(slot=request.slot, study_id=study.study_id, groups=groups)
            if desk.study.engine is None:
                return _NOT_NOW
        answer = self._until_answered(partial(desk.claim, self._db, self._worker_id, uuid4()))
        match answer:
            case Assigned():
                companions = self._companions(desk, [answer.claim.held], request.most - 1)
                return desk.claimed(request.slot, [answer, *companions])
            case Nothing():
                self._explain(study, answer)
                if answer.ended and desk.idle:
                    del self.desks[study.study_id]  # with the history that it holds
                return answer
            case Refused():  # the study was deleted just now, or another program has ended the trial
                return _NOT_NOW

    def _add(self, request: ClaimNext) -> Claimed | NothingToJoin:
        """Fills the places of trials that have ended."""
        desk = self.desks.get(request.beside[0].study_id)
        companions = self._companions(desk, request.beside, request.most) if desk else []
        return desk.claimed(request.slot, companions) if desk and companions else NothingToJoin(slot=request.slot)

    def _companions(self, desk: StudyDesk, beside: Sequence[Held], most: int) -> list[Assigned]:
        wanted = self._until_answered(lambda: desk.wanted(self._db, beside, most))
        if wanted is None:
            return []
        found: list[Assigned] = []
        if wanted.numbers:
            found += self._until_answered(partial(desk.join, self._db, self._worker_id, beside, wanted, uuid4()))
        while wanted.proposals and len(found) < wanted.most:
            self._renew()  # many proposals take seconds
            together = [*beside, *(trial.claim.held for trial in found)]
            propose = partial(desk.join_proposed, self._db, self._worker_id, together, wanted, desk.next_number)
            proposed = self._until_answered(partial(propose, uuid4()))
            if not proposed:
                break  # of another shape, or taken by others
            found += proposed
        return found

    # --- engines ----------------------------------------------------------------------------------------------------

    def _to_measure(self, study_id: int, desk: StudyDesk) -> Sequence[Group]:
        """Settles by which engine a study is trained, or says what a child has to measure first.

        Nothing where a child is at it already.
        """
        settled = self._until_answered(lambda: settle_engine(self._db, study_id, None))
        if settled is not None:
            desk.settle(settled)
        elif not self._is_measured(desk):
            groups = desk.to_measure()
            if groups:
                self._measured.add(study_id)
                return groups
            self._settle(desk, Engine(name="single", members=0))
        return ()

    def _is_measured(self, desk: StudyDesk) -> bool:
        """Studies that are compared have one engine: several children that measured it would disturb each other."""
        at_it = [self.desks[study_id].study for study_id in self._measured if study_id in self.desks]
        own = desk.study
        return any(study.study_id == own.study_id or (study.compared and own.compared) for study in at_it)

    def settle(self, study_id: int, measured: Engine | None) -> None:
        """A measurement has ended. None: its child died; perhaps not of that, so it is done again before it counts."""
        self._measured.discard(study_id)
        if measured is None:
            self._deaths[study_id] += 1
        desk = self.desks.get(study_id)
        if desk is None:
            return  # the study was deleted meanwhile
        if measured is not None or self._deaths[study_id] >= MEASURING_DEATHS:
            self._settle(desk, measured or Engine(name="single"))

    def _settle(self, desk: StudyDesk, engine: Engine) -> None:
        """Stores the engine, or takes over what somebody has settled before; the study file has a say in it."""
        study = desk.study
        if engine.members == 0:
            if study.spec.engine == "stacks":
                log.warning("study %s says engine: stacks, but no stack can be built of its trials here", study.name)
            engine = Engine(name="single")
        elif study.spec.engine == "stacks":
            engine = replace(engine, name="stacks")
        settled = self._until_answered(lambda: settle_engine(self._db, study.study_id, engine))
        desk.settle(settled or engine)
        log.info("study %s, engine: %s", study.name, settled or engine)

    # --- studies ----------------------------------------------------------------------------------------------------

    def _explain(self, study: StudyRecord, nothing: Nothing) -> None:
        """Says once why nothing comes of a study; that others train its last trials goes without saying."""
        if nothing.state is not StudyState.RUNNING and self._said.get(study.study_id, "") != nothing.state:
            state = "was deleted" if nothing.state is None else f"is {nothing.state}"
            log.info("study %s %s%s", study.name, state, f": {nothing.reason}" if nothing.reason else "")
        self._said[study.study_id] = nothing.state

    def _desk(self, study: StudyRecord) -> StudyDesk | None:
        if study.study_id not in self.desks and study.study_id not in self._not_understood:
            try:
                self.desks[study.study_id] = StudyDesk(study, self._sweep)
            except InvalidInput as error:
                if self._studies is not None:
                    raise
                self._not_understood.add(study.study_id)
                log.warning("study %s is left alone: %s", study.name, error)
        return self.desks.get(study.study_id)

    def _until_answered(self, call: Callable[[], Answer]) -> Answer:
        return until_answered(call, cap_seconds=self._longest_pause)
