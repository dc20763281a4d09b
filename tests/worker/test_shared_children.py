"""Workers whose slots share a child process, as those of a GPU do."""

from __future__ import annotations

import os
import signal

import pytest

from tests.chaos.stub import Behaviour
from tests.worker.bench import Bench
from tests.worker.test_stacks import ONE_SHAPE
from tuner.storage.studies import get_study

SINGLE = {"training__engine": "single"}
SHARED = ("--slots", "3", "--children", "1")


def test_slots_of_one_child_train_at_once(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, **SINGLE, budget__trials="6", training__epochs="8")
    worker = bench.start_stub("stacked", *SHARED, behaviour=Behaviour(epoch_seconds=0.2))
    bench.until(lambda: sum(row.epoch > 0 for row in bench.trials(study)) == 3, "an epoch of each slot's trial")
    assert len(worker.children()) == 1
    code, output = worker.wait()
    assert code == 0, output
    assert "slots 0, 1, 2 on cpu" in output
    rows = bench.trials(study)
    assert [(row.state, row.attempt, row.shared) for row in rows] == [("COMPLETE", 1, 1)] * 6
    assert all(row.steps == list(range(1, 9)) for row in rows)


def test_a_lost_child_gives_back_the_trials_of_all_its_slots(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, **SINGLE, budget__trials="3", training__epochs="12")
    worker = bench.start_stub("stacked", *SHARED, behaviour=Behaviour(epoch_seconds=0.2))
    bench.until(lambda: sum(row.epoch > 0 for row in bench.trials(study)) == 3, "an epoch of each slot's trial")
    (child,) = worker.children()
    os.kill(child.pid, signal.SIGKILL)
    code, output = worker.wait()
    assert code == 0, output
    assert [(row.state, row.attempt, row.deaths) for row in bench.trials(study)] == [("COMPLETE", 2, 0)] * 3


@pytest.mark.parametrize("how", ["kills", "raises"])
def test_a_trial_that_does_harm_is_tried_alone(bench: Bench, how: str) -> None:
    study = bench.study(ONE_SHAPE, **SINGLE, budget__trials="7")
    harmful = Behaviour(epoch_seconds=0.05, **{how: 4})  # others have trained before: the worker is sound
    code, output = bench.start_stub("stacked", *SHARED, behaviour=harmful).wait()
    assert code == 0, output
    rows = bench.trials(study)
    assert [row.state for row in rows] == ["COMPLETE"] * 4 + ["FAIL"] + ["COMPLETE"] * 2
    assert [row.deaths for row in rows if row.number != 4] == [0] * 6
    assert rows[4].outcome == "crashed"


def test_trials_that_do_not_fit_beside_others_are_tried_alone(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, **SINGLE, budget__trials="5")
    code, output = bench.start_stub("stacked", *SHARED, behaviour=Behaviour(epoch_seconds=0.05, fits=1)).wait()
    assert code == 0, output
    assert [(row.state, row.deaths) for row in bench.trials(study)] == [("COMPLETE", 0)] * 5


def test_one_that_does_not_fit_alone_is_infeasible(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, **SINGLE, budget__trials="4")
    code, output = bench.start_stub("stacked", *SHARED, behaviour=Behaviour(fits=0)).wait()
    assert code == 0, output
    assert {row.outcome for row in bench.trials(study)} == {"out_of_memory"}


def test_engines_are_measured_while_nothing_else_is_trained(bench: Bench) -> None:
    first = bench.study(ONE_SHAPE, **SINGLE, name="first", budget__trials="2", training__epochs="6")
    second = bench.study(ONE_SHAPE, budget__trials="12")
    behaviour = Behaviour(epoch_seconds=0.2, members=4)
    code, output = bench.start_stub("first", "stacked", *SHARED, behaviour=behaviour).wait()
    assert code == 0, output
    for study, trials in ((first, 2), (second, 12)):
        assert [(row.state, row.attempt) for row in bench.trials(study)] == [("COMPLETE", 1)] * trials
    engine = get_study(bench.db, "stacked").engine
    assert engine is not None
    assert engine.members == 4


def test_sigterm_gives_back_what_trains_and_what_waits(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, **SINGLE, budget__trials="6", training__epochs="200")
    worker = bench.start_stub("stacked", *SHARED, behaviour=Behaviour(epoch_seconds=0.1, fits=2))
    bench.until(lambda: bench.epochs(study) >= 2, "some epochs of one that is tried alone")
    os.kill(worker.process.pid, signal.SIGTERM)
    code, output = worker.wait(25)
    assert code == 0, output
    begun = [row for row in bench.trials(study) if row.attempt]
    assert {(row.state, row.deaths, row.lease_until) for row in begun} == {("WAITING", 0, None)}
