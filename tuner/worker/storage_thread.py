"""The one thread that talks to the database, so that the supervisor never waits for it.

It works an ordered queue of requests and answers with events. A lost connection is tried again, with growing pauses,
while training goes on and reports queue up.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

from tuner.errors import DatabaseError, InvalidInput
from tuner.states import Outcome, StudyState
from tuner.storage import claims, workers
from tuner.storage.claims import Held, Nothing, Standing
from tuner.storage.connection import Database
from tuner.storage.retry import until_answered
from tuner.storage.studies import StudyRecord, running_studies
from tuner.worker.desk import StudyDesk
from tuner.worker.events import Claimed, NothingToClaim, Refused, Renewed, StorageAnswer, StorageFailed

log = logging.getLogger("tuner.worker")
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class ClaimNext:
    slot: int


@dataclass(frozen=True, kw_only=True)
class Report:
    held: Held
    curve: Mapping[int, float]
    checkpoint: str | None  # below the artifacts' place


@dataclass(frozen=True, kw_only=True)
class Tell:
    held: Held
    outcome: Outcome
    reason: str | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GiveBack:
    held: Held
    death: Outcome | None  # crashed or timed out; None: nothing went wrong with it
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Equip:
    device: str  # on which the worker's slots train, as its children found it


@dataclass(frozen=True, kw_only=True)
class Close:
    reason: str | None  # why the worker ends, where something is wrong


Request = ClaimNext | Report | Tell | GiveBack | Equip | Close


class StorageThread(threading.Thread):
    """`answer` is called, on this thread, with every event; `studies` is None to serve all that run."""

    def __init__(
        self,
        db: Database,
        worker_id: UUID,
        studies: Sequence[StudyRecord] | None,
        sweep: Callable[[str], None],  # removes the files that a stored checkpoint makes useless
        answer: Callable[[StorageAnswer], None],
        heartbeat_seconds: float,
        register: Callable[[], None],  # makes the worker known, once more if need be
    ) -> None:
        super().__init__(name="storage", daemon=True)
        self._db = db
        self._worker_id = worker_id
        self._studies = studies
        self._sweep = sweep
        self._answer = answer
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._desks: dict[int, StudyDesk] = {}
        self._not_understood: set[int] = set()  # studies of another version of tuner
        self._said: dict[int, StudyState | None] = {}  # study -> state in which nothing could be claimed
        self._heartbeat_seconds = heartbeat_seconds
        self._register = register
        self._renew_at = time.monotonic() + heartbeat_seconds

    def post(self, request: Request) -> None:
        self._requests.put(request)

    def run(self) -> None:
        try:
            while True:
                request = self._next()
                if isinstance(request, Close):
                    self._until_answered(partial(self._leave, request.reason))
                    return
                answer = self._handle(request)
                if answer is not None:
                    self._answer(answer)
                if isinstance(answer, Claimed):
                    held = answer.claim.held
                    if not self._desks[held.study_id].crowded:  # else at the next heartbeat, if the trial lasts so long
                        self._look_ahead(held.study_id, held.number)
        except Exception as error:  # nothing can be stored any more: the supervisor must know
            self._answer(StorageFailed(error=error))
            with contextlib.suppress(DatabaseError):  # but for that, perhaps
                self._leave(str(error))
        finally:
            self._db.close()

    def _next(self) -> Request:
        """The next request; leases are renewed in time, however many are waiting."""
        while True:
            if time.monotonic() >= self._renew_at:
                self._renew()
            with contextlib.suppress(queue.Empty):
                return self._requests.get(timeout=max(0.0, self._renew_at - time.monotonic()))

    def _renew(self) -> None:
        standings = self._until_answered(self._say_alive)
        self._renew_at = time.monotonic() + self._heartbeat_seconds
        self._answer(Renewed(states={study: standing.state for study, standing in standings.items()}))
        for study, standing in standings.items():
            if standing.state is None:
                del self._desks[study]  # it was deleted
            if standing.state is StudyState.RUNNING:  # others may have taken the number that was looked ahead to
                self._look_ahead(study, standing.highest)

    def _say_alive(self) -> dict[int, Standing]:
        while (standings := claims.renew(self._db, self._worker_id, list(self._desks))) is None:
            self._register()  # a standby that took over may not have heard of it
        return standings

    def _look_ahead(self, study_id: int, highest: int) -> None:
        """So that a slot which becomes free need not wait for the sampler."""
        desk = self._desks.get(study_id)
        if desk is not None and not desk.idle:
            self._until_answered(lambda: desk.look_ahead(self._db, highest))

    def _leave(self, reason: str | None) -> None:
        claims.give_back_all(self._db, self._worker_id, reason or "its worker ended")
        workers.unregister(self._db, self._worker_id, reason)

    def _handle(self, request: Request) -> StorageAnswer | None:
        match request:
            case ClaimNext(slot=slot):
                return self._claim(slot)
            case Report(held=held, curve=curve, checkpoint=checkpoint):
                return self._at_desk(held, lambda desk: desk.report(self._db, held, curve, checkpoint))
            case Tell(held=held, outcome=outcome, reason=reason, attributes=attributes):
                return self._at_desk(held, lambda desk: desk.tell(self._db, held, outcome, reason, attributes))
            case GiveBack(held=held, death=death, reason=reason):
                return self._at_desk(held, lambda desk: desk.give_back(self._db, held, death=death, reason=reason))
            case Equip(device=device):
                return self._until_answered(lambda: workers.set_device(self._db, self._worker_id, device))
            case Close():
                return None

    def _at_desk(self, held: Held, call: Callable[[StudyDesk], Answer]) -> Answer | None:
        """None where the study has ended and its desk is gone: what a pruned trial still says may come so late."""
        desk = self._desks.get(held.study_id)
        return None if desk is None else self._until_answered(lambda: call(desk))

    def _claim(self, slot: int) -> StorageAnswer:
        """From the first study that has a trial to give, in the order in which they were named."""
        studies = self._studies
        if studies is None:
            studies = self._until_answered(lambda: running_studies(self._db))
        ended = self._studies is not None
        for study in studies:
            # The same request for every try, so that a lost answer does not cost a trial.
            answer = self._until_answered(partial(self._claim_from, study, slot, uuid4()))
            if isinstance(answer, Claimed):
                return answer
            ended = ended and isinstance(answer, Nothing) and answer.ended
        return NothingToClaim(slot=slot, ended=ended)

    def _claim_from(self, study: StudyRecord, slot: int, request: UUID) -> Claimed | Refused | Nothing:
        desk = self._desk(study)
        answer = desk.claim(self._db, slot, self._worker_id, request) if desk else Nothing(state=study.state)
        if isinstance(answer, Nothing):
            self._explain(study, answer)
            if answer.ended and desk and desk.idle:
                del self._desks[study.study_id]  # with the history that it holds
        return answer

    def _explain(self, study: StudyRecord, nothing: Nothing) -> None:
        """Says once why nothing comes of a study; that others train its last trials goes without saying."""
        if nothing.state is not StudyState.RUNNING and self._said.get(study.study_id, "") != nothing.state:
            state = "was deleted" if nothing.state is None else f"is {nothing.state}"
            log.info("study %s %s%s", study.name, state, f": {nothing.reason}" if nothing.reason else "")
        self._said[study.study_id] = nothing.state

    def _desk(self, study: StudyRecord) -> StudyDesk | None:
        if study.study_id not in self._desks and study.study_id not in self._not_understood:
            try:
                self._desks[study.study_id] = StudyDesk(study, self._sweep)
            except InvalidInput as error:
                if self._studies is not None:
                    raise
                self._not_understood.add(study.study_id)
                log.warning("study %s is left alone: %s", study.name, error)
        return self._desks.get(study.study_id)

    def _until_answered(self, call: Callable[[], Answer]) -> Answer:
        return until_answered(call, cap_seconds=self._heartbeat_seconds)
