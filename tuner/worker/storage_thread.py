"""The one thread that talks to the database, so that the supervisor never waits for it.

It works an ordered queue of requests and answers with events. A lost connection is tried again, with growing pauses,
while training goes on and reports queue up.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

from tuner.errors import DatabaseError
from tuner.states import StudyState
from tuner.storage import claims, workers
from tuner.storage.claims import Held, Standing
from tuner.storage.connection import Database
from tuner.storage.retry import until_answered
from tuner.storage.studies import StudyRecord
from tuner.worker.claimant import Claimant
from tuner.worker.desk import StudyDesk
from tuner.worker.events import Claimed, Renewed, StorageAnswer, StorageFailed
from tuner.worker.requests import ClaimNext, Close, Equip, GiveBack, Report, Request, Settle, Tell
from tuner.worker.usage import UsageMeter

Answer = TypeVar("Answer")


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
        self._answer = answer
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._claimant = Claimant(
            db, worker_id, studies, sweep, renew=self._renew_in_time, longest_pause=heartbeat_seconds
        )
        self._desks = self._claimant.desks
        self._meter = UsageMeter()
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
                    study = answer.trials[0].claim.held.study_id
                    if not self._desks[study].crowded:  # else at the next heartbeat, if the trial lasts so long
                        self._look_ahead(study, answer.trials[-1].claim.held.number)
        except Exception as error:  # nothing can be stored any more: the supervisor must know
            self._answer(StorageFailed(error=error))
            with contextlib.suppress(DatabaseError):  # but for that, perhaps
                self._leave(str(error))
        finally:
            self._db.close()

    def _next(self) -> Request:
        """The next request; leases are renewed in time, however many are waiting."""
        while True:
            self._renew_in_time()
            with contextlib.suppress(queue.Empty):
                return self._requests.get(timeout=max(0.0, self._renew_at - time.monotonic()))

    def _renew_in_time(self) -> None:
        if time.monotonic() < self._renew_at:
            return
        standings = self._until_answered(self._say_alive)
        usage = self._meter.read()
        self._until_answered(lambda: workers.set_usage(self._db, self._worker_id, usage))
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
            case ClaimNext():
                return self._claimant.claim(request)
            case Report(held=held, curve=curve, checkpoint=checkpoint):
                return self._at_desk(held, lambda desk: desk.report(self._db, held, curve, checkpoint))
            case Tell(held=held, outcome=outcome, reason=reason, attributes=attributes):
                return self._at_desk(held, lambda desk: desk.tell(self._db, held, outcome, reason, attributes))
            case GiveBack(held=held):
                return self._at_desk(held, lambda desk: desk.give_back(self._db, request))
            case Settle(study_id=study, engine=engine):
                self._claimant.settle(study, engine)
                return None
            case Equip(device=device):
                return self._until_answered(lambda: workers.set_device(self._db, self._worker_id, device))
            case Close():
                return None

    def _at_desk(self, held: Held, call: Callable[[StudyDesk], Answer]) -> Answer | None:
        """None where the study has ended and its desk is gone: what a pruned trial still says may come so late."""
        desk = self._desks.get(held.study_id)
        return None if desk is None else self._until_answered(lambda: call(desk))

    def _until_answered(self, call: Callable[[], Answer]) -> Answer:
        return until_answered(call, cap_seconds=self._heartbeat_seconds)
