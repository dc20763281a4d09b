"""That pruning takes account of all trials, without reading them all the time."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.worker.bench import QUICK, Bench
from tuner.states import Outcome
from tuner.storage import workers
from tuner.storage.claims import Held
from tuner.storage.connection import Database, Row
from tuner.worker import judge
from tuner.worker.desk import StudyDesk
from tuner.worker.events import Assigned, Pruned

ROUNDS, TOGETHER, EPOCHS = 4, 4, 9
TRIALS = ROUNDS * TOGETHER
PRUNERS = ["{name: median, startup_trials: 1}", "{name: asha, reduction_factor: 3}"]


class Counting(Database):
    """Counts the looks at all trials that run."""

    looks = 0

    def execute(self, statement: str, **values: Any) -> list[Row]:
        self.looks += "finish_seq > " in statement
        return super().execute(statement, **values)


def pruned_epochs(bench: Bench, db: Database, name: str, pruner: str) -> dict[int, int]:
    """Trains trials, always some side by side, the worse ones among the better ones: number -> epoch of its end."""
    study = bench.study(QUICK, name=name, search__pruner=pruner, training__epochs=str(EPOCHS))
    worker = registered(bench)
    desk = StudyDesk(study, lambda checkpoint: None)
    ends: dict[int, int] = {}
    for _ in range(ROUNDS):
        together = [claimed(desk, db, worker) for _ in range(TOGETHER)]
        for epoch in range(1, EPOCHS + 1):
            for held in together:
                value = (7 * held.number % TRIALS) / TRIALS + epoch / 100
                if isinstance(desk.report(db, held, {epoch: value}, None), Pruned):
                    ends[held.number] = epoch
        for held in together:
            desk.tell(db, held, Outcome.COMPLETE, None, {})
    return ends


def claimed(desk: StudyDesk, db: Database, worker: UUID) -> Held:
    assigned = desk.claim(db, worker, uuid4())
    assert isinstance(assigned, Assigned)
    return assigned.claim.held


def registered(bench: Bench) -> UUID:
    worker = uuid4()
    workers.register(bench.db, worker, host="here", pid=1, device="cpu", slots=1, version="0")
    return worker


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_worker_knows_its_own_reports_without_reading(
    bench: Bench, database_url: str, pruner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Counting(database_url) as db:
        monkeypatch.setattr(judge, "READING_SHARE", float("inf"))  # before every decision
        monkeypatch.setattr(judge, "LONGEST_UNREAD_SECONDS", 600.0)
        always = pruned_epochs(bench, db, "always", pruner)
        db.looks = 0
        monkeypatch.setattr(judge, "READING_SHARE", 1e-9)  # once
        assert pruned_epochs(bench, db, "once", pruner) == always
        assert db.looks == 1
    assert always


def test_what_other_workers_report_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    study = bench.study(QUICK, search__pruner="{name: asha, reduction_factor: 2}", training__epochs=str(EPOCHS))
    monkeypatch.setattr(judge, "READING_SHARE", float("inf"))
    desks = [StudyDesk(study, lambda checkpoint: None) for _ in range(2)]
    for desk, value in zip(desks, (0.9, 0.1), strict=True):
        held = claimed(desk, bench.db, registered(bench))
        answer = desk.report(bench.db, held, {1: value}, None)
    assert answer == Pruned(held=held, epoch=1)
