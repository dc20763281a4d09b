"""Workers and children that die in every way: nothing is lost, and curves and weights are equal to the bit."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import psutil
import pytest
import torch

from tests.worker.bench import SLOW, SLOW_EPOCHS, Bench
from tuner.storage.connection import Row
from tuner.storage.studies import StudyRecord
from tuner.training import checkpoint
from tuner.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Whole:
    """A trial that nobody disturbed."""

    curve: list[float]
    value: float
    checkpoint: Checkpoint


@cache
def _trained() -> list[Whole]:
    return []


@pytest.fixture
def undisturbed(bench: Bench) -> list[Whole]:
    """The trials of the study as they are without disturbance; trained once for all tests of this file."""
    if not _trained():
        study = bench.study(SLOW, name="undisturbed")
        bench.finish("undisturbed", "--slots", "2")
        _trained().extend(
            Whole(curve=row.curve, value=row.value, checkpoint=last_checkpoint(bench, row))
            for row in bench.trials(study)
        )
    return _trained()


def last_checkpoint(bench: Bench, row: Row) -> Checkpoint:
    return checkpoint.load(bench.home / "artifacts" / row.checkpoint)


def assert_equal_to_the_bit(bench: Bench, study: StudyRecord, undisturbed: list[Whole]) -> None:
    rows = bench.trials(study)
    assert [row.state for row in rows] == ["COMPLETE", "COMPLETE"]
    for row, whole in zip(rows, undisturbed, strict=True):
        assert row.steps == list(range(1, SLOW_EPOCHS + 1))
        assert (row.curve, row.value) == (whole.curve, whole.value)
        ours, theirs = last_checkpoint(bench, row), whole.checkpoint
        assert ours.epoch == theirs.epoch == SLOW_EPOCHS
        assert ours.curve == theirs.curve
        for mine, yours in ((ours.model, theirs.model), (ours.best.model, theirs.best.model)):
            assert mine
            assert mine.keys() == yours.keys()
            assert all(torch.equal(mine[name], yours[name]) for name in mine)


def test_a_killed_child_is_replaced_and_its_trial_goes_on(bench: Bench, undisturbed: list[Whole]) -> None:
    study = bench.study(SLOW)
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: any(row.checkpoint for row in bench.trials(study)), "a first checkpoint")
    for child in worker.children():
        os.kill(child.pid, signal.SIGKILL)
    code, output = worker.wait()
    assert code == 0, output
    assert "killed by SIGKILL" in output
    assert {(row.attempt, row.deaths) for row in bench.trials(study)} == {(2, 1)}
    assert_equal_to_the_bit(bench, study, undisturbed)


def test_after_kill_9_of_the_supervisor_its_children_are_gone_and_another_worker_goes_on(
    bench: Bench, undisturbed: list[Whole]
) -> None:
    study = bench.study(SLOW)
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: any(row.checkpoint for row in bench.trials(study)), "a first checkpoint")
    family = worker.seen.children(recursive=True)
    os.kill(worker.process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    bench.finish("slow", "--slots", "2")
    assert bench.attempts(study) == [2, 2]
    assert_equal_to_the_bit(bench, study, undisturbed)


def test_sigterm_keeps_what_was_trained_and_costs_no_death(bench: Bench, undisturbed: list[Whole]) -> None:
    study = bench.study(SLOW)
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: bench.epochs(study) >= 3, "three epochs")
    started = time.monotonic()
    os.kill(worker.process.pid, signal.SIGTERM)
    code, output = worker.wait(25)
    assert code == 130, output
    assert time.monotonic() - started < 25
    rows = bench.trials(study)
    assert [(row.state, row.deaths, row.lease_until) for row in rows] == [("WAITING", 0, None)] * 2
    # The checkpoint is of the last epoch that was reported: nothing will be trained twice.
    assert all(row.checkpoint.endswith(f"/{row.epoch}.ckpt") for row in rows if row.epoch)
    bench.finish("slow", "--slots", "2")
    assert_equal_to_the_bit(bench, study, undisturbed)


def test_a_second_signal_ends_at_once(bench: Bench) -> None:
    study = bench.study(SLOW, data__points="1000000")  # an epoch takes far longer than the patience of the first
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: any(row.lease_until for row in bench.trials(study)), "a running trial")
    time.sleep(2)
    os.kill(worker.process.pid, signal.SIGINT)
    time.sleep(1)
    started = time.monotonic()
    os.kill(worker.process.pid, signal.SIGINT)
    code, output = worker.wait(10)
    assert code == 130, output
    assert time.monotonic() - started < 8
    assert {row.state for row in bench.trials(study)} == {"WAITING"}


def test_a_frozen_child_is_replaced_and_its_trial_goes_on(bench: Bench, undisturbed: list[Whole]) -> None:
    study = bench.study(SLOW)
    worker = bench.start("slow", "--slots", "2", "--hang-limit", "3")
    bench.until(lambda: bench.epochs(study) >= 2, "two epochs")
    frozen = worker.children()[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    code, output = worker.wait()
    assert code == 0, output
    assert "made no step for" in output
    assert sorted((row.attempt, row.deaths) for row in bench.trials(study)) == [(1, 0), (2, 1)]
    assert_equal_to_the_bit(bench, study, undisturbed)


def test_three_deaths_fail_a_trial_and_the_study_goes_on(bench: Bench) -> None:
    study = bench.study(SLOW, training__epochs="200")
    worker = bench.start("slow", "--slots", "1")
    bench.until(lambda: bench.epochs(study) >= 1, "an epoch: else the worker is held to be unfit")
    for attempt in (1, 2, 3):
        bench.until(lambda attempt=attempt: bench.attempts(study) == [attempt], f"attempt {attempt}")  # type: ignore[misc]
        bench.until(worker.children, "a child")
        time.sleep(0.5)
        for child in worker.children():
            os.kill(child.pid, signal.SIGKILL)
    bench.until(lambda: bench.trials(study)[0].state == "FAIL", "the trial is given up")
    first = bench.trials(study)[0]
    assert first.outcome == "crashed"
    assert first.reason == "given up after 3 deaths, the last: its process was killed by SIGKILL"
    bench.until(lambda: len(bench.trials(study)) == 2 and bench.trials(study)[1].epoch > 0, "the next trial trains")


def test_a_trial_without_a_searched_knob_keeps_its_curve(bench: Bench) -> None:
    """Its point is empty: whether it was begun must not be told by its parameters."""
    study = bench.study(SLOW, model__dropout="0.1", training__learning_rate="0.05", budget__trials="1")
    worker = bench.start("slow", "--slots", "1")
    bench.until(lambda: any(row.checkpoint for row in bench.trials(study)), "a first checkpoint")
    for child in worker.children():
        os.kill(child.pid, signal.SIGKILL)
    code, output = worker.wait()
    assert code == 0, output
    (row,) = bench.trials(study)
    assert (row.attempt, row.params) == (2, None)
    assert row.value == max(row.curve)


def test_a_damaged_checkpoint_costs_its_epochs_not_the_trial(bench: Bench, undisturbed: list[Whole]) -> None:
    study = bench.study(SLOW)
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: all(row.checkpoint for row in bench.trials(study)) and bench.trials(study), "checkpoints")
    worker.stop()
    for row in bench.trials(study):
        (bench.home / "artifacts" / row.checkpoint).write_bytes(b"torn")
    bench.finish("slow", "--slots", "2")
    assert_equal_to_the_bit(bench, study, undisturbed)


def test_the_fork_server_may_die(bench: Bench, undisturbed: list[Whole]) -> None:
    study = bench.study(SLOW)
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: bench.epochs(study) >= 2, "two epochs")
    (server,) = [
        process
        for process in worker.seen.children()
        if "forkserver" in " ".join(process.cmdline()) and os.getsid(process.pid) != process.pid
    ]
    os.kill(server.pid, signal.SIGKILL)
    code, output = worker.wait()
    assert code == 0, output
    assert_equal_to_the_bit(bench, study, undisturbed)


def test_a_worker_ends_with_its_launcher(bench: Bench) -> None:
    study = bench.study(SLOW, training__epochs="500")
    worker = bench.start("slow", "--slots", "1", "--stop-with-stdin")  # its standard input is at its end already
    code, output = worker.wait(60)
    assert code == 130, output
    assert all(row.lease_until is None for row in bench.trials(study))


def test_attempts_count_up_one_by_one(bench: Bench) -> None:
    study = bench.study(SLOW, training__epochs="60")
    seen = [0]
    for _ in range(3):
        worker = bench.start("slow", "--slots", "1")
        bench.until(lambda: bench.trials(study) and bench.trials(study)[0].attempt > seen[-1], "another attempt")
        seen.append(bench.trials(study)[0].attempt)
        os.kill(worker.process.pid, signal.SIGTERM)
        worker.wait(25)
    assert all(after - before == 1 for before, after in pairwise(seen))
    assert bench.trials(study)[0].deaths == 0
