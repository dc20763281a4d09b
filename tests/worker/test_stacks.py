"""Workers whose slots train several trials of one shape at once."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterable
from uuid import uuid4

import pytest

from tests.chaos.stub import Behaviour
from tests.storage.rows import claim_one, make_worker
from tests.worker.bench import Bench
from tuner.spec.search import Method
from tuner.spec.stacking import Engine
from tuner.storage.comparisons import launch_comparison
from tuner.storage.connection import Row
from tuner.storage.studies import StudyRecord, get_study
from tuner.worker.claimant import Claimant
from tuner.worker.desk import StudyDesk
from tuner.worker.events import Assigned, Claimed, EngineUnknown
from tuner.worker.requests import ClaimNext

ONE_SHAPE = """
study: stacked
data: {name: spiral}
model: {family: mlp, units: 8, dropout: {low: 0.0, high: 0.4}}
training: {epochs: 3, learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}
search: {method: random, seed: 0}
budget: {trials: 40}
"""
SHAPES = {"model__units": "{choices: [8, 16, 32]}"}
STACKS = Behaviour(members=64, epoch_seconds=0.1)


def finish(bench: Bench, *workers: Iterable[str], behaviour: Behaviour = STACKS) -> str:
    started = [bench.start_stub(*arguments, behaviour=behaviour) for arguments in workers]
    ends = [worker.wait() for worker in started]
    assert [code for code, _ in ends] == [0] * len(ends), ends
    return "".join(output for _, output in ends)


def stacks(bench: Bench, study: StudyRecord) -> list[Row]:
    """Trials that were trained together; the shapes are those of their units."""
    return bench.db.execute(
        """
        SELECT array_agg(number ORDER BY number) AS numbers, max(shared) AS largest,
            array_agg(DISTINCT (SELECT param_value FROM trial_params AS point
                WHERE point.trial_id = lease.trial_id AND param_name = 'units')) AS units
        FROM tuner.lease WHERE study_id = %(s)s GROUP BY stack""",
        s=study.study_id,
    )


def assert_all_complete(bench: Bench, study: StudyRecord, trials: int, attempts: int | None = 1) -> None:
    rows = bench.trials(study)
    assert [row.number for row in rows] == list(range(trials))
    assert {row.state for row in rows} == {"COMPLETE"}
    assert all(row.steps == [1, 2, 3] for row in rows)
    if attempts is not None:
        assert {row.attempt for row in rows} == {attempts}


def test_a_small_study_is_divided_among_the_slots(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE)
    finish(bench, ["stacked", "--slots", "2"])
    assert_all_complete(bench, study, 40)
    assert sorted(len(row.numbers) for row in stacks(bench, study)) == [20, 20]
    assert get_study(bench.db, "stacked").engine == Engine(name="stacks", members=64)


def test_stacks_are_of_one_shape_and_no_number_is_left_out(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, **SHAPES)
    finish(bench, ["stacked", "--slots", "2"], ["stacked"], behaviour=Behaviour(members=6, epoch_seconds=0.1))
    assert_all_complete(bench, study, 40)
    together = stacks(bench, study)
    assert all(len(row.units) == 1 for row in together)
    assert max(row.largest for row in together) == 6
    order = bench.db.execute("SELECT number FROM trials ORDER BY trial_id")
    assert [row.number for row in order] == list(range(40))


def test_points_and_curves_are_those_of_trials_that_train_alone(bench: Bench) -> None:
    alone = bench.study(ONE_SHAPE, name="alone", training__engine="single", **SHAPES)
    stacked = bench.study(ONE_SHAPE, **SHAPES)
    finish(bench, ["alone", "stacked", "--slots", "2"], behaviour=Behaviour(members=8))
    assert get_study(bench.db, "alone").engine == Engine(name="single")
    assert {row.shared for row in bench.trials(alone)} == {1}
    assert [(row.params, row.curve) for row in bench.trials(alone)] == [
        (row.params, row.curve) for row in bench.trials(stacked)
    ]


def test_the_place_of_a_pruned_trial_is_filled(bench: Bench) -> None:
    pruner = "{name: median, startup_trials: 2}"
    study = bench.study(ONE_SHAPE, training__epochs="12", search__pruner=pruner, budget__trials="24")
    finish(bench, ["stacked"], behaviour=Behaviour(members=4, epoch_seconds=0.4))
    rows = bench.trials(study)
    assert Counter(row.state for row in rows).keys() == {"COMPLETE", "PRUNED"}
    assert all(row.steps == list(range(1, row.epoch + 1)) for row in rows)
    joined = bench.db.execute(
        """
        SELECT DISTINCT lease.number FROM tuner.lease JOIN tuner.attempt USING (trial_id)
        JOIN tuner.lease AS other ON other.trial_id <> lease.trial_id
        JOIN tuner.attempt AS going ON going.trial_id = other.trial_id
        WHERE attempt.started_at BETWEEN going.started_at + interval '0.3 seconds' AND going.ended_at"""
    )
    assert joined  # while others went on
    assert max(row.shared for row in rows) == 4


def test_a_trial_left_alone_is_joined_by_what_others_have_left(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE)
    desk = StudyDesk(study, lambda checkpoint: None)
    desk.settle(Engine(name="stacks", members=4))
    me, other = make_worker(bench.db), make_worker(bench.db)
    left = desk.claim(bench.db, me, uuid4())
    assert isinstance(left, Assigned)
    for _ in range(10):
        claim_one(bench.db, study.study_id, other)
    beside = [left.claim.held]
    wanted = desk.wanted(bench.db, beside, most=3)
    assert wanted is not None
    joined = desk.join(bench.db, me, beside, wanted, uuid4())
    assert [trial.claim.held.number for trial in joined] == [11, 12, 13]


def test_a_child_that_is_killed_blames_none_of_several_trials(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, budget__trials="4", training__epochs="20")
    worker = bench.start_stub("stacked", behaviour=Behaviour(members=4, epoch_seconds=0.3))
    bench.until(lambda: bench.epochs(study) >= 4, "an epoch of each")
    for child in worker.children():
        os.kill(child.pid, signal.SIGKILL)
    code, output = worker.wait()
    assert code == 0, output
    assert [(row.state, row.attempt, row.deaths) for row in bench.trials(study)] == [("COMPLETE", 2, 0)] * 4
    assert max(row.shared for row in bench.trials(study)) == 2
    (row,) = bench.db.execute("SELECT DISTINCT ended, reason FROM tuner.attempt WHERE attempt = 1")
    assert (row.ended, row.reason) == (
        "given_back",
        "its process was killed by SIGKILL; it trained 4 trials, which go on in smaller stacks",
    )


@pytest.mark.parametrize("how", ["kills", "raises"])
def test_a_trial_that_does_harm_is_found_and_the_others_complete(bench: Bench, how: str) -> None:
    study = bench.study(ONE_SHAPE, budget__trials="8")
    harmful = Behaviour(members=4, epoch_seconds=0.05, **{how: 6})  # others have trained before: the worker is sound
    code, output = bench.start_stub("stacked", behaviour=harmful).wait()
    assert code == 0, output
    rows = bench.trials(study)
    assert [row.state for row in rows] == ["COMPLETE"] * 6 + ["FAIL", "COMPLETE"]
    assert [row.deaths for row in rows if row.number != 6] == [0] * 7
    assert rows[6].outcome == "crashed"
    assert ("is broken" if how == "raises" else "killed by SIGKILL") in rows[6].reason


def test_trials_that_do_not_fit_together_are_trained_in_smaller_stacks(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, budget__trials="12")
    finish(bench, ["stacked"], behaviour=Behaviour(members=12, fits=3))
    rows = bench.trials(study)
    assert [(row.state, row.deaths) for row in rows] == [("COMPLETE", 0)] * 12
    assert max(row.shared for row in rows) == 3


@pytest.mark.parametrize(("proposals", "largest"), [(1, 1), (5, 5)])
def test_tpe_stacks_as_many_as_may_be_proposed_at_once(bench: Bench, proposals: int, largest: int) -> None:
    search = f"{{method: tpe, parallel_proposals: {proposals}}}"
    study = bench.study(ONE_SHAPE, search=search, budget__trials="20")
    finish(bench, ["stacked"], behaviour=Behaviour(members=64))
    assert_all_complete(bench, study, 20)
    assert max(row.shared for row in bench.trials(study)) == largest
    assert get_study(bench.db, "stacked").engine == Engine(
        name="single" if proposals == 1 else "stacks", members=1 if proposals == 1 else 64
    )


def test_leases_are_renewed_while_a_stack_is_filled_with_proposals(bench: Bench) -> None:
    """In a large space each proposal takes a second: of a large stack longer than a lease."""
    study = bench.study(ONE_SHAPE, search="{method: tpe, parallel_proposals: 4}")
    renewed: list[int] = []
    claimant = Claimant(
        bench.db,
        make_worker(bench.db),
        [study],
        sweep=lambda checkpoint: None,
        renew=lambda: renewed.append(len(bench.trials(study))),
        longest_pause=1.0,
    )
    assert isinstance(claimant.claim(ClaimNext(slot=0, most=4)), EngineUnknown)
    claimant.settle(study.study_id, Engine(name="stacks", members=4))
    claimed = claimant.claim(ClaimNext(slot=0, most=4))
    assert isinstance(claimed, Claimed)
    assert len(claimed.trials) == 4
    assert renewed == [1, 2, 3]  # trials that were claimed by then


def test_given_back_trials_of_tpe_train_together_again(bench: Bench) -> None:
    search = "{method: tpe, parallel_proposals: 4}"
    study = bench.study(ONE_SHAPE, search=search, training__epochs="200", budget__trials="4")
    worker = bench.start_stub("stacked", behaviour=Behaviour(members=4, epoch_seconds=0.1))
    bench.until(lambda: bench.epochs(study) >= 4, "an epoch of each")
    points = [row.params for row in bench.trials(study)]
    os.kill(worker.process.pid, signal.SIGTERM)
    worker.wait(25)
    assert {(row.state, row.deaths) for row in bench.trials(study)} == {("WAITING", 0)}
    bench.start_stub("stacked", behaviour=Behaviour(members=4, epoch_seconds=0.1))
    bench.until(lambda: bench.attempts(study) == [2] * 4, "all go on")
    assert [row.params for row in bench.trials(study)] == points
    assert {row.shared for row in bench.trials(study)} == {4}


def test_a_comparison_has_one_engine(bench: Bench) -> None:
    methods: tuple[Method, ...] = ("tpe", "random")
    spec = bench.study(ONE_SHAPE, name="as_given", budget__trials="6").spec
    specs = [spec.with_search(name=f"compared-{method}", method=method, seed=0) for method in methods]
    launch_comparison(bench.db, "compared", {}, specs, {})
    finish(bench, ["compared-tpe", "compared-random"], behaviour=Behaviour(members=8))
    engines = [get_study(bench.db, spec.name).engine for spec in specs]
    assert engines == [Engine(name="stacks", members=8)] * 2


def test_one_child_measures_for_a_whole_comparison(bench: Bench) -> None:
    """Several at once would measure each other's load."""
    spec = bench.study(ONE_SHAPE, name="as_given", budget__trials="6").spec
    specs = [spec.with_search(name=f"compared-{seed}", method="random", seed=seed) for seed in range(3)]
    launch_comparison(bench.db, "compared", {}, specs, {})
    behaviour = Behaviour(members=8, measure_seconds=2.0)
    output = finish(bench, [*(spec.name for spec in specs), "--slots", "3"], behaviour=behaviour)
    assert output.count(", engine: ") == 1


def test_each_trial_of_a_stack_has_its_own_log(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, budget__trials="3")
    finish(bench, ["stacked"], behaviour=Behaviour(members=3))
    for row in bench.trials(study):
        (log,) = (bench.home / "artifacts" / study.folder / str(row.trial_id)).glob("*.log")
        first, *epochs, last = log.read_text().splitlines()
        assert f"trial {row.number}, attempt 1" in first
        assert [f"epoch {epoch}" in line for epoch, line in enumerate(epochs, 1)] == [True] * 3
        assert last.endswith("complete")


def test_what_cannot_be_stacked_is_not_measured(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, training__optimizer="rmsprop", budget__trials="2")
    finish(bench, ["stacked"])
    assert {row.shared for row in bench.trials(study)} == {1}
    assert get_study(bench.db, "stacked").engine == Engine(name="single")
    (row,) = bench.db.execute("SELECT engine FROM tuner.study")
    assert row.engine == json.loads('{"name": "single", "members": 1}')


def test_a_worker_begins_as_many_trials_as_it_is_to(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, **SHAPES)
    finish(bench, ["stacked", "--slots", "2", "--count", "7"], behaviour=Behaviour(members=4))
    begun = [row for row in bench.trials(study) if row.attempt > 0]
    assert [row.outcome for row in begun] == ["complete"] * 7


def test_sigterm_gives_all_back_from_their_checkpoints(bench: Bench) -> None:
    study = bench.study(ONE_SHAPE, budget__trials="6", training__epochs="200")
    worker = bench.start_stub("stacked", behaviour=Behaviour(members=6, epoch_seconds=0.2))
    bench.until(lambda: bench.epochs(study) >= 6, "an epoch of each")
    os.kill(worker.process.pid, signal.SIGTERM)
    code, output = worker.wait(25)
    assert code == 0, output  # it was asked to
    for row in bench.trials(study):
        assert (row.state, row.deaths, row.lease_until) == ("WAITING", 0, None)
        assert row.checkpoint.endswith(f"/{row.epoch}.ckpt")
    rows = bench.db.execute("SELECT DISTINCT largest_stack, ended FROM tuner.lease JOIN tuner.attempt USING (trial_id)")
    assert rows == [(None, "given_back")]


def test_another_study_trains_while_an_engine_is_measured(bench: Bench) -> None:
    measured = bench.study(ONE_SHAPE, name="measured", budget__trials="4")
    other = bench.study(ONE_SHAPE, name="other", training__engine="single", budget__trials="2")
    finish(bench, ["measured", "other", "--slots", "2"], behaviour=Behaviour(members=4, measure_seconds=3.0))
    assert_all_complete(bench, measured, 4)
    first = bench.db.execute(
        "SELECT study_id FROM tuner.lease JOIN tuner.attempt USING (trial_id) ORDER BY attempt.started_at LIMIT 1"
    )
    assert first == [(other.study_id,)]


@pytest.mark.parametrize(("deaths", "engine"), [(1, Engine(name="stacks", members=4)), (2, Engine(name="single"))])
def test_an_engine_is_measured_again_where_the_child_died_of_something_else(
    bench: Bench, deaths: int, engine: Engine
) -> None:
    study = bench.study(ONE_SHAPE, budget__trials="4")
    finish(bench, ["stacked"], behaviour=Behaviour(members=4, measure_deaths=deaths))
    assert_all_complete(bench, study, 4)
    assert get_study(bench.db, "stacked").engine == engine


def test_the_engine_that_the_file_names_is_taken(bench: Bench) -> None:
    """Whatever is faster, and where no two trials can be proposed at once."""
    bench.study(ONE_SHAPE, name="slower", training__engine="stacks", budget__trials="2")
    bench.study(ONE_SHAPE, name="tpe", training__engine="stacks", search__method="tpe", budget__trials="2")
    finish(bench, ["slower", "tpe"], behaviour=Behaviour(members=1))
    engines = [get_study(bench.db, name).engine for name in ("slower", "tpe")]
    assert engines == [Engine(name="stacks", members=1)] * 2


@pytest.mark.parametrize(("optimizer", "measured"), [("adamw", 0), ("rmsprop", 8)])
def test_where_no_stack_can_be_built_the_worker_says_so(bench: Bench, optimizer: str, measured: int) -> None:
    """Where a child finds so, as of data that is streamed, and where no trial can be stacked."""
    bench.study(ONE_SHAPE, training__engine="stacks", training__optimizer=optimizer, budget__trials="2")
    output = finish(bench, ["stacked"], behaviour=Behaviour(members=measured))
    assert get_study(bench.db, "stacked").engine == Engine(name="single")
    assert output.count("study stacked says engine: stacks, but no stack can be built of its trials here") == 1


def test_a_worker_that_was_told_to_end_measures_nothing(bench: Bench) -> None:
    bench.study(ONE_SHAPE)
    with bench.db.transaction():
        bench.db.execute("SELECT FROM tuner.study FOR UPDATE")  # so that the worker waits with its question
        worker = bench.start_stub("stacked", behaviour=STACKS)
        waits = "SELECT FROM pg_locks WHERE NOT granted"
        bench.until(lambda: bench.db.execute(waits), "the worker asks for its engine")
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.process.stdout
        while "told to end" not in worker.process.stdout.readline():
            pass
    code, output = worker.wait(25)
    assert code == 0, output
    assert get_study(bench.db, "stacked").engine is None
