from __future__ import annotations

from uuid import UUID, uuid4

from tuner.storage.claims import renew
from tuner.storage.connection import Database
from tuner.storage.workers import WorkerState, list_workers, register, unregister


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
    alive, lost = list_workers(db)
    assert (alive.worker_id, alive.state, alive.trials, alive.studies) == (first, WorkerState.ALIVE, 0, ())
    assert (lost.worker_id, lost.state) == (second, WorkerState.LOST)
    renew(db, second, [])
    assert [worker.state for worker in list_workers(db)] == [WorkerState.ALIVE] * 2
    unregister(db, first)
    assert [worker.worker_id for worker in list_workers(db)] == [second]
    ended, _ = list_workers(db, ended=True)
    assert (ended.worker_id, ended.state) == (first, WorkerState.ENDED)


def test_registering_again_after_a_lost_answer_changes_nothing(db: Database) -> None:
    worker_id = add(db, 1)
    register(db, worker_id, host="here", pid=1, device="cpu", slots=2, version="0.1.0")
    (worker,) = list_workers(db)
    assert (worker.host, worker.pid, worker.device, worker.slots) == ("here", 1, "cpu", 2)
