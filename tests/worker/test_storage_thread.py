"""What the storage thread answers, and that it survives what comes late."""

from __future__ import annotations

import queue
from uuid import uuid4

from tests.proxy import Proxy
from tests.worker.bench import QUICK, Bench
from tuner.states import Outcome
from tuner.storage import workers
from tuner.storage.connection import Database
from tuner.worker.events import Claimed, NothingToClaim, Refused, StorageAnswer
from tuner.worker.requests import ClaimNext, Close, Report, Tell
from tuner.worker.storage_thread import StorageThread


def test_what_a_trial_says_after_its_study_has_ended_is_dropped(bench: Bench, database_url: str) -> None:
    """Its last trial was pruned in one slot while another slot learnt that nothing is left."""
    study = bench.study(QUICK, budget__trials="1", training__engine="single")
    worker = uuid4()
    workers.register(bench.db, worker, host="here", pid=1, device="cpu", slots=2, version="0")
    answers: queue.Queue[StorageAnswer] = queue.Queue()
    thread = StorageThread(
        Database(database_url), worker, [study], lambda checkpoint: None, answers.put, 5.0, register=lambda: None
    )
    thread.start()
    thread.post(ClaimNext(slot=0))
    claimed = answers.get(timeout=20)
    assert isinstance(claimed, Claimed)
    held = claimed.trials[0].claim.held
    thread.post(Report(held=held, curve={1: 0.5}, checkpoint=None))
    thread.post(Tell(held=held, outcome=Outcome.COMPLETE, reason=None, attributes={}))
    thread.post(ClaimNext(slot=1))
    assert answers.get(timeout=20) == NothingToClaim(slot=1, ended=True)
    thread.post(Report(held=held, curve={2: 0.9}, checkpoint=None))
    thread.post(ClaimNext(slot=0))
    assert answers.get(timeout=20) == NothingToClaim(slot=0, ended=True)
    thread.post(Close(reason=None))
    thread.join(20)
    (row,) = bench.trials(study)
    assert (row.state, row.curve) == ("COMPLETE", [0.5])


class Breaking(Proxy):
    """Loses the connection once, when the worker asks what became of a trial that it holds no longer."""

    broke = False

    def refuses(self, statement: str) -> bool:
        breaks = "ended by another program" in statement and not self.broke
        self.broke = self.broke or breaks
        return breaks


def test_a_refusal_is_told_though_the_connection_breaks(bench: Bench, database_url: str) -> None:
    """Or the training would go on for nothing."""
    study = bench.study(QUICK, budget__trials="1", training__engine="single")
    worker = uuid4()
    workers.register(bench.db, worker, host="here", pid=1, device="cpu", slots=1, version="0")
    answers: queue.Queue[StorageAnswer] = queue.Queue()
    with Breaking(database_url) as proxy:
        thread = StorageThread(
            Database(proxy.url), worker, [study], lambda checkpoint: None, answers.put, 60.0, register=lambda: None
        )
        thread.start()
        thread.post(ClaimNext(slot=0))
        claimed = answers.get(timeout=20)
        assert isinstance(claimed, Claimed)
        bench.db.execute("UPDATE tuner.lease SET attempt = attempt + 1")  # as if others had it by now
        thread.post(Report(held=claimed.trials[0].claim.held, curve={1: 0.5}, checkpoint=None))
        assert answers.get(timeout=20) == Refused(held=claimed.trials[0].claim.held)
        assert proxy.broke
        thread.post(Close(reason=None))
        thread.join(20)
