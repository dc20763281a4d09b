"""Trials that are claimed to train together: still exactly the budget, each number once, none left out."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from tests.storage.rows import claim_beside, claim_one, make_study, make_worker
from tuner.errors import InvalidInput
from tuner.spec.search import BudgetConfig
from tuner.spec.stacking import Engine
from tuner.states import Outcome, StudyState
from tuner.storage import claims
from tuner.storage.claims import Claim, Ending, Held, Nothing
from tuner.storage.connection import Database
from tuner.storage.steering import set_budget, set_state
from tuner.storage.studies import list_studies, running_studies, settle_engine, spent
from tuner.storage.workers import list_workers


@pytest.fixture
def worker(db: Database) -> UUID:
    return make_worker(db, slots=2)


def take(db: Database, study: int, worker: UUID) -> Held:
    claim = claim_one(db, study, worker)
    assert isinstance(claim, Claim)
    return claim.held


def join(
    db: Database, beside: Held, worker: UUID, numbers: Sequence[int], most: int = 99, largest_stack: int | None = None
) -> list[int]:
    found = claim_beside(db, beside, worker, numbers, most=most, largest_stack=largest_stack)
    return [claim.held.number for claim in found]


def complete_all(db: Database, study: int) -> None:
    for row in db.execute("SELECT trial_id, number, attempt FROM tuner.lease WHERE lease_until IS NOT NULL"):
        held = Held(study_id=study, trial_id=row.trial_id, number=row.number, attempt=row.attempt)
        claims.tell(db, held, Ending(outcome=Outcome.COMPLETE, value=1.0))


def pass_time(db: Database, seconds: int) -> None:
    db.execute("UPDATE tuner.lease SET counted_from = counted_from - make_interval(secs => %(s)s)", s=seconds)


def states(db: Database, study: int) -> list[str]:
    rows = db.execute("SELECT state::text FROM trials WHERE study_id = %(s)s ORDER BY number", s=study)
    return [row.state for row in rows]


def test_numbers_that_are_skipped_wait_for_whoever_comes_next(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=10)
    first = take(db, study, worker)
    assert join(db, first, worker, [2, 5, 8], most=2) == [2, 5]
    assert states(db, study) == ["RUNNING", "WAITING", "RUNNING", "WAITING", "WAITING", "RUNNING"]
    assert db.execute("SELECT trial_id FROM tuner.attempt GROUP BY 1 HAVING count(*) <> 1") == []
    assert [take(db, study, worker).number for _ in range(7)] == [1, 3, 4, 6, 7, 8, 9]
    assert isinstance(claim_one(db, study, worker), Nothing)
    rows = db.execute(
        "SELECT number, lease.attempt, count(*) FROM tuner.lease JOIN tuner.attempt USING (trial_id) "
        "GROUP BY number, lease.attempt ORDER BY number"
    )
    assert rows == [(number, 1, 1) for number in range(10)]


def test_the_supply_says_what_is_left(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=10)
    first = take(db, study, worker)
    _, supply = claims.claim(db, study, worker, uuid4(), numbers=[3], beside=[first])
    assert (list(supply.waiting), supply.next, supply.numbers, supply.to_train, supply.slots) == ([1, 2], 4, 6, 10, 2)
    assert supply == claims.supply(db, study)
    assert supply.share == 5


@pytest.mark.parametrize(("budget", "begun"), [({"trials": 4}, [3]), ({"total_epochs": 40}, [3]), ({}, [3, 4])])
def test_companions_stay_within_the_budget(
    db: Database, worker: UUID, budget: dict[str, float], begun: list[int]
) -> None:
    study = make_study(db, epochs=10, **budget)
    assert join(db, take(db, study, worker), worker, [3, 4]) == begun
    assert spent(db, study).trials == 1 + len(begun)
    assert spent(db, study).reserved_epochs == (1 + len(begun)) * 10


def test_an_answer_that_was_lost_is_given_again(db: Database, worker: UUID) -> None:
    study, request = make_study(db, trials=20), uuid4()
    first = take(db, study, worker)
    once, again = (claim_beside(db, first, worker, [2, 4, 6], request=request, most=most) for most in (2, 1))
    assert [claim.held for claim in once] == [claim.held for claim in again]
    assert [claim.held.number for claim in once] == [2, 4]
    assert len(states(db, study)) == 5


def test_trials_given_back_train_together_again(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=20)
    for held in [take(db, study, worker) for _ in range(4)]:
        claims.give_back(db, held)
    assert join(db, take(db, study, worker), worker, [1, 3, 5]) == [1, 3, 5]
    assert states(db, study) == ["RUNNING", "RUNNING", "WAITING", "RUNNING", "WAITING", "RUNNING"]


def test_suspects_are_kept_among_themselves(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=20)
    for held in [take(db, study, worker) for _ in range(4)]:
        claims.give_back(db, held, largest_stack=2 if held.number in (1, 2) else None)
    first = take(db, study, worker)
    assert join(db, first, worker, range(6)) == [3, 4, 5]
    suspect = claim_one(db, study, worker)
    assert isinstance(suspect, Claim)
    assert (suspect.held.number, suspect.largest_stack, suspect.deaths) == (1, 2, 0)
    assert join(db, suspect.held, worker, range(20), largest_stack=2) == [2]
    claims.give_back(db, suspect.held, largest_stack=1)
    assert join(db, first, worker, [1]) == []


def test_a_second_of_a_slot_is_paid_once(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=20)
    first = take(db, study, worker)
    join(db, first, worker, [1, 2, 3])
    pass_time(db, 60)
    assert spent(db, study).seconds == pytest.approx(60, abs=5)
    claims.tell(db, first, Ending(outcome=Outcome.COMPLETE, value=1.0))
    (row,) = db.execute("SELECT seconds FROM tuner.lease WHERE number = 0")
    assert row.seconds == pytest.approx(15, abs=2)


def test_what_was_trained_before_others_came_or_after_they_left_is_paid_alone(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=20)
    other, first = take(db, study, worker), take(db, study, worker)  # in two slots
    claims.tell(db, other, Ending(outcome=Outcome.COMPLETE, value=1.0))
    beside_it = take(db, study, worker)
    pass_time(db, 1000)
    found = claim_beside(db, first, worker, range(3, 6))
    pass_time(db, 400)
    claims.tell(db, found[0].held, Ending(outcome=Outcome.COMPLETE, value=1.0))
    pass_time(db, 300)
    claims.give_back(db, found[1].held)
    db.execute("UPDATE trials SET state = 'COMPLETE' WHERE number = 5")  # by another program
    claims.adopt(db, found[2].held)
    pass_time(db, 500)
    claims.tell(db, first, Ending(outcome=Outcome.COMPLETE, value=1.0))
    claims.give_back(db, beside_it)
    rows = db.execute("SELECT number, seconds FROM tuner.lease ORDER BY number")
    assert dict(rows) == pytest.approx({0: 0, 1: 1000 + 100 + 100 + 500, 2: 2200, 3: 100, 4: 200, 5: 200}, abs=5)
    assert spent(db, study).seconds == pytest.approx(2 * 2200, abs=10)


def test_a_stack_keeps_one_slot_busy(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=20)
    join(db, take(db, study, worker), worker, [1, 2, 3])
    assert [(seen.trials, seen.busy) for seen in list_workers(db)] == [(4, 1)]
    take(db, study, worker)
    assert [(seen.trials, seen.busy) for seen in list_workers(db)] == [(5, 2)]


def test_what_was_skipped_does_not_begin_once_the_seconds_are_spent(db: Database, worker: UUID) -> None:
    study = make_study(db, name="short", seconds=60)
    first = take(db, study, worker)
    join(db, first, worker, [4])
    pass_time(db, 600)
    claims.give_back(db, first)
    assert take(db, study, worker).number == 0  # it has begun, and is trained to its end
    assert claim_one(db, study, worker) == Nothing(state=StudyState.RUNNING, open=2)
    complete_all(db, study)
    assert claim_one(db, study, worker) == Nothing(state=StudyState.FINISHED)
    assert states(db, study) == ["COMPLETE", "WAITING", "WAITING", "WAITING", "COMPLETE"]
    with pytest.raises(InvalidInput, match="has spent its budget"):
        set_state(db, "short", StudyState.RUNNING)
    set_budget(db, "short", BudgetConfig(seconds=3600))
    assert [take(db, study, worker).number for _ in range(4)] == [1, 2, 3, 5]


def test_what_was_skipped_has_not_begun(db: Database, worker: UUID) -> None:
    study = make_study(db, name="skipping", trials=100, epochs=10)
    join(db, take(db, study, worker), worker, [50])
    used = spent(db, study)
    assert (used.trials, used.open, used.reserved_epochs) == (2, 2, 20)
    (line,) = list_studies(db)
    assert {state: count for state, count in line.trials.items() if count} == {"RUNNING": 2}


@pytest.mark.parametrize(
    ("smaller", "too_small"),
    [
        (BudgetConfig(trials=4), BudgetConfig(trials=3)),
        (BudgetConfig(total_epochs=45), BudgetConfig(total_epochs=39)),
    ],
)
def test_a_smaller_budget_leaves_out_what_was_skipped(
    db: Database, worker: UUID, smaller: BudgetConfig, too_small: BudgetConfig
) -> None:
    study = make_study(db, name="less", trials=100, epochs=10)
    join(db, take(db, study, worker), worker, [50])
    set_budget(db, "less", smaller)
    assert [take(db, study, worker).number for _ in range(2)] == [1, 2]
    assert isinstance(claim_one(db, study, worker), Nothing)
    assert claims.supply(db, study).to_train == 4
    with pytest.raises(InvalidInput, match="is too little"):
        set_budget(db, "less", too_small)
    complete_all(db, study)
    if smaller.trials:
        assert claim_one(db, study, worker) == Nothing(state=StudyState.FINISHED)
    set_budget(db, "less", BudgetConfig(trials=100))
    assert join(db, take(db, study, worker), worker, [49, 51]) == [49, 51]
    assert take(db, study, worker).number == 4


def test_a_stopped_study_leaves_what_was_skipped_until_it_is_resumed(db: Database, worker: UUID) -> None:
    study = make_study(db, name="stopped", trials=4)
    first = take(db, study, worker)
    join(db, first, worker, [3])
    db.execute("UPDATE tuner.study SET state = 'stopping', document = '{}'")
    complete_all(db, study)
    assert claim_one(db, study, worker) == Nothing(state=StudyState.FINISHED)
    assert states(db, study) == ["COMPLETE", "WAITING", "WAITING", "COMPLETE"]
    set_state(db, "stopped", StudyState.RUNNING)
    assert [take(db, study, worker).number for _ in range(2)] == [1, 2]


def test_what_was_skipped_is_there_for_a_cancelled_study_that_is_resumed(db: Database, worker: UUID) -> None:
    study = make_study(db, name="cancelled", trials=4)
    first = take(db, study, worker)
    join(db, first, worker, [3])
    claims.give_back(db, first)
    set_state(db, "cancelled", StudyState.CANCELLED)
    assert states(db, study) == ["FAIL", "WAITING", "WAITING", "RUNNING"]
    assert claim_one(db, study, worker) == Nothing(state=StudyState.CANCELLED, open=1)
    complete_all(db, study)
    assert claim_one(db, study, worker) == Nothing(state=StudyState.CANCELLED)
    assert running_studies(db) == []  # none that a worker has to serve
    set_state(db, "cancelled", StudyState.RUNNING)
    assert [take(db, study, worker).number for _ in range(2)] == [1, 2]
    assert isinstance(claim_one(db, study, worker), Nothing)


def test_many_at_once_get_each_number_once(db: Database, database_url: str) -> None:
    """With numbers and without, some given back: exactly the budget."""
    trials = 120
    study = make_study(db, trials=trials)
    ended: list[int] = []
    shapes = 3

    def work(seed: int) -> None:
        rng = random.Random(seed)
        with Database(database_url) as own:
            me = make_worker(own)
            while isinstance(first := claim_one(own, study, me), Claim):
                shape = first.held.number % shapes
                numbers = [number for number in range(trials + 9) if number % shapes == shape]
                found = claim_beside(own, first.held, me, numbers, most=rng.randrange(8))
                assert all(claim.held.number % shapes == shape for claim in found)
                for claim in [first, *found]:
                    if rng.random() < 0.1:
                        claims.give_back(own, claim.held)
                    elif claims.tell(own, claim.held, Ending(outcome=Outcome.COMPLETE, value=0.0)):
                        ended.append(claim.held.number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == list(range(trials))
    assert states(db, study) == ["COMPLETE"] * trials
    numbers = db.execute("SELECT number FROM trials WHERE study_id = %(s)s ORDER BY trial_id", s=study)
    assert [row.number for row in numbers] == list(range(trials))  # as Optuna counts them


def test_the_first_engine_is_that_of_all_that_are_compared(db: Database) -> None:
    one, other, later, alone = (make_study(db) for _ in range(4))

    def compare(study: int) -> None:
        db.execute("INSERT INTO tuner.comparison_study VALUES (1, %(s)s, 'random', 0)", s=study)

    db.execute("INSERT INTO tuner.comparison (comparison_id, name, document) VALUES (1, 'both', '{}')")
    compare(one)
    compare(other)
    stacks, single = Engine(name="stacks", members=8), Engine(name="single")
    assert settle_engine(db, other, None) is None
    assert settle_engine(db, one, stacks) == stacks
    assert settle_engine(db, other, single) == stacks
    compare(later)
    assert settle_engine(db, later, None) == stacks
    assert settle_engine(db, alone, single) == single
    assert settle_engine(db, 12345, None) == single  # deleted: nobody shall measure for it
