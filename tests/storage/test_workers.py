from __future__ import annotations

from uuid import UUID, uuid4

from tests.storage.rows import claim_one, make_study
from tuner.storage.claims import renew
from tuner.storage.connection import Database
from tuner.storage.workers import WorkerState, list_workers, register, set_device, unregister


def add(db: Database, pid: int) -> UUID:
    worker_id = uuid4()
    register(db, worker_id, host="here", pid=pid, device="cpu", slots=2, version="0.1.0")
    return worker_id


def silence(db: Database, worker_id: UUID) -> None:
    db.execute(
        "UPDATE tuner.worker SET last_seen = now() - interval '1 hour' WHERE worker_id = %(worker)s", worker=worker_id
    )


def test_a_worker_is_alive_lost_and_ended(db: Database) -> None:
    first, second = add(db, 1), add(db, 2)
    silence(db, second)
    assert [worker.worker_id for worker in list_workers(db)] == [first]  # the other holds nothing: nobody need care
    claim_one(db, make_study(db), second)
    alive, lost = list_workers(db)
    assert (alive.worker_id, alive.state, alive.trials, alive.training) == (first, WorkerState.ALIVE, 0, {})
    assert (lost.worker_id, lost.state) == (second, WorkerState.LOST)
    renew(db, second, [])
    assert [worker.state for worker in list_workers(db)] == [WorkerState.ALIVE] * 2
    unregister(db, first)
    assert [worker.worker_id for worker in list_workers(db)] == [second]
    ended, _ = list_workers(db, ended=True)
    assert (ended.worker_id, ended.state) == (first, WorkerState.ENDED)


def test_the_list_says_what_each_trains_and_on_what(db: Database) -> None:
    first, second = add(db, 1), add(db, 2)
    one, two = make_study(db, name="one"), make_study(db, name="two")
    for study, worker_id in ((one, first), (two, first), (one, first), (one, second)):
        claim_one(db, study, worker_id)
    set_device(db, first, "cuda:0, cuda:1")
    busy, other = list_workers(db)
    assert (busy.device, busy.trials, busy.training) == ("cuda:0, cuda:1", 3, {"one": [0, 1], "two": [0]})
    assert (other.device, other.training) == ("cpu", {"one": [2]})


def test_a_worker_that_ended_badly_says_why(db: Database) -> None:
    unregister(db, add(db, 1), "the first 3 trials of this worker all died")
    (ended,) = list_workers(db, ended=True)
    assert (ended.state, ended.reason) == (WorkerState.ENDED, "the first 3 trials of this worker all died")


def test_registering_again_after_a_lost_answer_changes_nothing(db: Database) -> None:
    worker_id = add(db, 1)
    register(db, worker_id, host="here", pid=1, device="cpu", slots=2, version="0.1.0")
    (worker,) = list_workers(db)
    assert (worker.host, worker.pid, worker.device, worker.slots) == ("here", 1, "cpu", 2)
