"""Workers that nobody disturbs: exact budgets, the same points for any number of them, outcomes, orders obeyed."""

from __future__ import annotations

import copy
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from tests.worker.bench import QUICK, SLOW, SLOW_EPOCHS, Bench
from tuner.search import SAMPLERS, History
from tuner.states import StudyState
from tuner.storage.history import HistoryReader
from tuner.storage.steering import set_state
from tuner.storage.studies import delete_study, get_study
from tuner.storage.workers import list_workers


def test_four_workers_of_two_slots_spend_exactly_the_budget(bench: Bench) -> None:
    study = bench.study(QUICK, budget__trials="30")
    workers = [bench.start("quick", "--slots", "2") for _ in range(4)]
    for worker in workers:
        code, output = worker.wait()
        assert code == 0, output
    rows = bench.trials(study)
    assert [row.number for row in rows] == list(range(30))
    assert {(row.state, row.attempt, tuple(row.steps)) for row in rows} == {("COMPLETE", 1, (1, 2, 3))}
    assert all(row.value == max(row.curve) for row in rows)
    assert get_study(bench.db, "quick").state is StudyState.FINISHED


@pytest.mark.parametrize("method", ["random", "grid"])
def test_points_are_the_same_for_one_slot_and_for_eight(bench: Bench, method: str) -> None:
    alone = bench.study(QUICK, name="alone", search__method=method)
    many = bench.study(QUICK, name="many", search__method=method)
    bench.finish("alone", "--slots", "1")
    workers = [bench.start("many", "--slots", "4") for _ in range(2)]
    assert [worker.wait()[0] for worker in workers] == [0, 0]
    assert [row.params for row in bench.trials(alone)] == [row.params for row in bench.trials(many)]
    assert [row.curve for row in bench.trials(alone)] == [row.curve for row in bench.trials(many)]


def test_with_one_slot_a_study_repeats_whole(bench: Bench) -> None:
    """TPE and a pruner look at what finished before: with one slot that is always the same."""
    changes = {"search__method": "tpe", "search__pruner": "{name: median, startup_trials: 2}"}
    once, again = (bench.study(QUICK, name=name, **changes) for name in ("once", "again"))
    bench.finish("once", "again", "--slots", "1")
    rows = bench.trials(once)
    assert [(row.params, row.curve, row.state) for row in rows] == [
        (row.params, row.curve, row.state) for row in bench.trials(again)
    ]
    assert {row.state for row in rows} == {"COMPLETE", "PRUNED"}


def test_a_pruned_trials_curve_ends_at_the_epoch_of_the_decision(bench: Bench) -> None:
    study = bench.study(QUICK, training__epochs="20", search__pruner="{name: median, startup_trials: 2, min_epochs: 2}")
    bench.finish("quick", "--slots", "2")
    pruned = [row for row in bench.trials(study) if row.state == "PRUNED"]
    assert pruned
    for row in pruned:
        assert row.reason == f"pruned after epoch {row.epoch}"
        assert row.steps == list(range(1, row.epoch + 1))
        assert 2 <= row.epoch < 20


def test_total_epochs_are_never_exceeded(bench: Bench) -> None:
    study = bench.study(QUICK, budget="{total_epochs: 20}")
    bench.finish("quick", "--slots", "2")
    assert bench.epochs(study) == 18
    assert len(bench.trials(study)) == 6


def test_a_trial_that_goes_wrong_costs_the_trial_only(bench: Bench) -> None:
    study = bench.study(
        """
study: wrong
data: {name: digits}
model: {family: cnn, layers: {choices: [1, 6]}, channels: 4, dense_units: 0}
training: {epochs: 2, batch_size: 64, optimizer: sgd, learning_rate: {choices: [0.01, 100.0]}, weight_decay: 10.0}
search: {method: grid}
budget: {}
""",
        model__batch_norm="false",
        budget="{trials: 4}",
    )
    bench.finish("wrong", "--slots", "2")
    rows = {(row.params["layers"], row.params["learning_rate"]): row for row in bench.trials(study)}
    outcomes = {key: (row.state, row.outcome) for key, row in rows.items()}
    assert outcomes == {
        (0.0, 0.0): ("COMPLETE", "complete"),
        (0.0, 1.0): ("PRUNED", "diverged"),
        (1.0, 0.0): ("PRUNED", "infeasible"),
        (1.0, 1.0): ("PRUNED", "infeasible"),
    }
    assert rows[0.0, 1.0].value is None
    violated = bench.db.execute("SELECT key FROM trial_system_attributes WHERE key LIKE 'constraints:%'")
    assert sorted(row.key for row in violated) == [
        "constraints:diverged",
        "constraints:infeasible",
        "constraints:infeasible",
    ]


def test_children_hold_no_credentials(bench: Bench) -> None:
    bench.environment["PGPASSWORD"] = "canary-in-the-environment"
    bench.study(SLOW)
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: len(worker.children()) == 2, "two children")
    family = worker.seen.children(recursive=True)
    assert len(family) >= 3  # the fork server too
    for process in family:
        environment = Path(f"/proc/{process.pid}/environ").read_text()
        assert "canary" not in environment
        assert "TUNER_DATABASE_URL" not in environment
        assert bench.environment["TUNER_DATABASE_URL"] not in " ".join(process.cmdline())


@pytest.mark.parametrize(("state", "left"), [(StudyState.PAUSED, "WAITING"), (StudyState.CANCELLED, "FAIL")])
def test_running_trials_obey_what_was_decided_elsewhere(bench: Bench, state: StudyState, left: str) -> None:
    study = bench.study(SLOW, training__epochs="500")
    bench.start("slow", "--slots", "2")
    bench.until(lambda: bench.epochs(study) >= 2, "two epochs")
    set_state(bench.db, "slow", state)
    bench.until(lambda: {row.state for row in bench.trials(study)} == {left}, f"both trials {left}", seconds=20)
    if state is StudyState.CANCELLED:
        assert {row.outcome for row in bench.trials(study)} == {"cancelled"}
    else:
        rows = bench.trials(study)
        assert all(row.checkpoint is not None and row.deaths == 0 for row in rows)
        set_state(bench.db, "slow", StudyState.RUNNING)
        bench.until(lambda: {row.state for row in bench.trials(study)} == {"RUNNING"}, "both go on", seconds=20)
        bench.until(lambda: bench.epochs(study) > sum(row.epoch for row in rows), "both go on")


def test_a_study_deleted_while_running_ends_its_worker_in_peace(bench: Bench) -> None:
    study = bench.study(SLOW, training__epochs="500")
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: bench.epochs(study) >= 2, "two epochs")
    delete_study(bench.db, "slow")
    code, output = worker.wait(60)
    assert code == 0, output
    assert "Traceback" not in output


def test_a_full_disk_ends_the_worker_with_its_own_code_and_costs_no_death(bench: Bench) -> None:
    import resource

    study = bench.study(SLOW, model__units="512")
    limit = 2**20  # a checkpoint is larger, the data set is not
    worker = bench.start(
        "slow", "--slots", "1", preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    code, output = worker.wait(60)
    assert code == 6, output
    assert ".ckpt" in output
    assert "Traceback" not in output
    (row, *_) = bench.trials(study)
    assert (row.state, row.deaths, row.checkpoint) == ("WAITING", 0, None)


def test_a_machine_without_a_gpu_says_so_and_costs_no_trial(bench: Bench) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    study = bench.study(QUICK)
    code, output = bench.start("quick", "--slots", "2", "--device", "cuda").wait()
    assert code == 7, output
    assert output.splitlines()[-1] == "tuner: --device cuda: there is no CUDA device here; use cpu or auto"
    assert "Traceback" not in output
    assert bench.trials(study) == []


def test_old_checkpoints_are_removed(bench: Bench) -> None:
    study = bench.study(SLOW)
    bench.finish("slow", "--slots", "2")
    for row in bench.trials(study):
        folder = (bench.home / "artifacts" / row.checkpoint).parent
        assert [file.name for file in folder.iterdir()] == [f"{SLOW_EPOCHS}.ckpt"]


def test_a_stopped_study_ends_also_under_a_worker_that_serves_all(bench: Bench) -> None:
    study = bench.study(SLOW, budget__trials="30")
    bench.start("--slots", "2")
    bench.until(lambda: bench.epochs(study) >= 1, "a first epoch")
    set_state(bench.db, "slow", StudyState.STOPPING)
    bench.until(lambda: get_study(bench.db, "slow").state is StudyState.FINISHED, "the study is finished")
    assert [row.state for row in bench.trials(study)] == ["COMPLETE", "COMPLETE"]


def test_what_lies_in_the_working_directory_is_not_imported(bench: Bench) -> None:
    for name in ("optuna", "torch", "queue", "random"):
        (bench.home / f"{name}.py").write_text("raise SystemExit('code of the working directory ran')\n")
    bench.study(QUICK, budget__trials="2")
    code, output = bench.start("quick", "--slots", "1", folder=bench.home).wait()
    assert code == 0, output


def test_an_unknown_study_is_said_in_one_line(bench: Bench) -> None:
    bench.study(QUICK)
    code, output = bench.start("quik").wait()
    assert code == 3
    assert output.splitlines() == ["tuner: no study 'quik'; did you mean 'quick'?"]


def test_a_worker_without_names_serves_whatever_runs_until_it_is_told_to_end(bench: Bench) -> None:
    worker = bench.start("--slots", "1")
    study = bench.study(QUICK, budget__trials="3")
    bench.until(lambda: get_study(bench.db, "quick").state is StudyState.FINISHED, "the study is finished")
    assert worker.process.poll() is None
    os.kill(worker.process.pid, signal.SIGTERM)
    started = time.monotonic()
    code, output = worker.wait(25)
    assert code == 130, output
    assert time.monotonic() - started < 25
    assert len(bench.trials(study)) == 3


def test_every_point_can_be_proposed_again_from_what_is_stored(bench: Bench) -> None:
    """Proposed ahead or not, by whichever worker: what the sampler looked at is on record."""
    study = bench.study(QUICK, search__method="tpe", budget__trials="24")
    crew = [bench.start("quick", "--slots", "2") for _ in range(2)]
    assert [worker.wait()[0] for worker in crew] == [0, 0]
    space, search = study.spec.space, study.spec.search
    history = HistoryReader(study.study_id, "maximize").read(bench.db)
    rows = bench.db.execute(
        "SELECT number, finish_seq, (SELECT value_json::json FROM trial_system_attributes AS looked "
        "WHERE looked.trial_id = lease.trial_id AND key = 'tuner:history') AS looked_at FROM tuner.lease"
    )
    trials = {trial.number: trial for trial in history.finished}
    order = {row.number: row.finish_seq for row in rows}
    for row in rows:
        seen = History(
            direction="maximize",
            finished=[trial for trial in history.finished if order[trial.number] <= row.looked_at["finished"]],
            running=[as_running(trials[number]) for number in row.looked_at["running"]],
        )
        again = SAMPLERS[search.method](space, seen, search.seed, row.number)
        assert again == trials[row.number].params, row
    assert any(row.looked_at["finished"] >= 10 for row in rows)  # some were the model's


def as_running(trial: FrozenTrial) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.state, seen.values, seen.intermediate_values = TrialState.RUNNING, None, {}
    return seen


def test_a_worker_begins_as_many_trials_as_it_is_to(bench: Bench) -> None:
    study = bench.study(QUICK)
    bench.finish("quick", "--slots", "2", "--count", "3")
    assert [row.outcome for row in bench.trials(study)] == ["complete"] * 3
    assert get_study(bench.db, "quick").state is StudyState.RUNNING


def test_a_worker_ends_at_its_time_limit_and_gives_back(bench: Bench) -> None:
    study = bench.study(SLOW, training__epochs="200")
    bench.finish("slow", "--slots", "1", "--time-limit", "6s")
    (row,) = bench.trials(study)
    assert (row.state, row.deaths, row.outcome) == ("WAITING", 0, None)
    assert row.checkpoint is not None


def test_a_worker_whose_first_trials_all_die_gives_up_on_itself(bench: Bench) -> None:
    study = bench.study(SLOW, training__batch_size="4", budget__trials="40")  # an epoch takes seconds
    worker = bench.start("slow", "--slots", "3")
    bench.until(lambda: bench.attempts(study) == [1, 1, 1], "three trials begin")
    for child in worker.children():
        os.kill(child.pid, signal.SIGKILL)
    code, output = worker.wait()
    last = output.splitlines()[-1]
    assert (code, last) == (
        8,
        "tuner: trials died 3 times on this worker before any trained an epoch, the last time: "
        "its process was killed by SIGKILL",
    )
    assert [(row.state, row.deaths) for row in bench.trials(study)] == [("WAITING", 1)] * 3
    (ended,) = list_workers(bench.db, ended=True)
    assert ended.reason == last.removeprefix("tuner: ")


@pytest.mark.slow
def test_a_pause_does_not_wait_for_an_epoch_that_takes_long(bench: Bench) -> None:
    study = bench.study(SLOW, data__points="400000", training__batch_size="1")  # minutes an epoch
    worker = bench.start("slow", "--slots", "1")
    bench.until(lambda: bench.attempts(study) == [1], "a trial begins")
    set_state(bench.db, "slow", StudyState.PAUSED)
    bench.until(lambda: bench.trials(study)[0].lease_until is None, "it is given back", 40)
    (row,) = bench.db.execute("SELECT ended, reason FROM tuner.attempt")
    assert (row.ended, row.reason) == ("given_back", "the study was paused")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait()[0] == 130
