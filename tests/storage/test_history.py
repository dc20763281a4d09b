from __future__ import annotations

import math
from uuid import UUID, uuid4

import pytest

from tests.storage.rows import claim_one
from tuner.states import Outcome
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Ending, Progress
from tuner.storage.connection import Database
from tuner.storage.history import HistoryReader


@pytest.fixture
def study_id(db: Database) -> int:
    (row,) = db.execute(
        "WITH made AS (INSERT INTO public.studies (study_name) VALUES ('digits') RETURNING study_id) "
        "INSERT INTO tuner.study (study_id, document, budget, epochs, versions) "
        "SELECT study_id, '{}', '{\"trials\": 9}', 4, '{}' FROM made RETURNING study_id"
    )
    return int(row.study_id)


@pytest.fixture
def worker(db: Database) -> UUID:
    worker_id = uuid4()
    workers.register(db, worker_id, host="here", pid=7, device="cpu", slots=2, version="0.1.0")
    return worker_id


def take(db: Database, study_id: int, worker: UUID) -> Claim:
    claim = claim_one(db, study_id, worker)
    assert isinstance(claim, Claim)
    return claim


def test_the_order_is_that_of_finishing(db: Database, study_id: int, worker: UUID) -> None:
    reader = HistoryReader(study_id, "maximize")
    first, second, third = (take(db, study_id, worker) for _ in range(3))
    assert [trial.number for trial in reader.read(db).running] == [0, 1, 2]
    claims.tell(db, third.held, Ending(outcome=Outcome.COMPLETE, value=0.75), Progress(curve={1: 0.5, 2: 0.75}))
    claims.report(db, first.held, Progress(curve={1: 0.25}))
    history = reader.read(db)
    assert [(trial.number, trial.value, trial.intermediate_values) for trial in history.finished] == [
        (2, 0.75, {1: 0.5, 2: 0.75})
    ]
    assert [(trial.number, trial.intermediate_values) for trial in history.running] == [(0, {1: 0.25}), (1, {})]
    claims.tell(db, second.held, Ending(outcome=Outcome.PRUNED, value=0.5))
    history = reader.read(db)
    assert [trial.number for trial in history.finished] == [2, 1]
    assert history.finish_seq == 2
    assert HistoryReader(study_id, "maximize").read(db) == history


def test_a_failed_trial_that_is_tried_again_stands_once(db: Database, study_id: int, worker: UUID) -> None:
    reader = HistoryReader(study_id, "maximize")
    first, second = (take(db, study_id, worker) for _ in range(2))
    claims.tell(db, first.held, Ending(outcome=Outcome.CRASHED))
    claims.tell(db, second.held, Ending(outcome=Outcome.COMPLETE, value=0.5))
    assert [trial.number for trial in reader.read(db).finished] == [0, 1]
    db.execute(  # as `tuner trial retry` does
        "UPDATE tuner.lease SET outcome = NULL, finish_seq = NULL WHERE number = 0;"
        "UPDATE trials SET state = 'WAITING' WHERE number = 0"
    )
    again = take(db, study_id, worker)
    history = reader.read(db)
    assert ([trial.number for trial in history.finished], history.finish_seq) == ([1], 2)
    assert [trial.number for trial in history.running] == [0]
    claims.tell(db, again.held, Ending(outcome=Outcome.COMPLETE, value=0.75))
    history = reader.read(db)
    assert [(trial.number, trial.value) for trial in history.finished] == [(1, 0.5), (0, 0.75)]
    assert history.finish_seq == 3


def test_values_that_are_no_numbers(db: Database, study_id: int, worker: UUID) -> None:
    claim = take(db, study_id, worker)
    db.execute(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
        "VALUES (%(trial)s, 1, NULL, 'NAN'), (%(trial)s, 2, NULL, 'INF_NEG')",
        trial=claim.held.trial_id,
    )
    (trial,) = HistoryReader(study_id, "maximize").read(db).running
    assert math.isnan(trial.intermediate_values[1])
    assert trial.intermediate_values[2] == -math.inf
