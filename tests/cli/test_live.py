"""The live view: what is drawn of a study for a terminal of any size, and what is printed where there is none."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from tests.cli.site import Done, Site
from tuner.cli.live import PlainView, open_view
from tuner.cli.live_view import line, render
from tuner.cli.snapshot import Snapshot, SnapshotReader
from tuner.spec.search import BudgetConfig
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage.connection import Database
from tuner.storage.trials import TrialRecord
from tuner.storage.workers import GpuUsage, Usage, WorkerRecord, WorkerState

NOW = datetime(2026, 3, 2, 12, 0).astimezone()
KNOBS = ("layers", "units[0]", "learning_rate[adamw]", "learning_rate[sgd]", "optimizer")


def trial(number: int, outcome: Outcome | None = None, value: float | None = None, **changes: Any) -> TrialRecord:
    ended = outcome is not None
    record = TrialRecord(
        trial_id=100 + number,
        number=number,
        state=outcome.state if outcome else TrialState.RUNNING,
        value=value,
        best_epoch=14 if ended else None,
        latest=None if ended else 0.5,
        params={"layers": number % 3 + 1, "units[0]": 32, "learning_rate[adamw]": 0.00123456, "optimizer": "adamw"},
        epochs=20 if ended else 5,
        attempts=1,
        deaths=0,
        outcome=outcome,
        reason=None,
        seconds=40.0 if ended else 10.0,
        worker="host:1",
        checkpoint=None,
        finish_seq=number + 1 if ended else None,
        started_at=None,
        ended_at=None,
    )
    return replace(record, **changes)


def snapshot(ended: int = 10, running: int = 2, **changes: Any) -> Snapshot:
    """A study of which the first trials have ended and the next ones run."""
    seen = Snapshot(
        name="digits-cnn",
        state=StudyState.RUNNING,
        reason=None,
        affordable=True,
        metric="accuracy",
        maximize=True,
        epochs=20,
        budget=BudgetConfig(trials=40),
        knobs=KNOBS,
        open=tuple(trial(ended + number) for number in range(running)),
        finished=tuple(trial(number, Outcome.COMPLETE, 0.9 + number / 1000) for number in range(ended)),
        elapsed=65.0,
        looked_at=NOW,
    )
    return replace(seen, **changes)


def worker(**changes: Any) -> WorkerRecord:
    """One that trains in both of its slots."""
    usage = Usage(busy_cores=1.94, cores=2, memory_bytes=612 * 2**20, available_bytes=3 * 2**30)
    seen = WorkerRecord(
        worker_id=uuid4(),
        host="host.example.org",
        pid=7,
        device="cpu",
        slots=2,
        version="1",
        state=WorkerState.ALIVE,
        reason=None,
        serves=None,
        usage=usage,
        trials=2,
        busy=2,
        training={},
        started_at=NOW,
        last_seen=NOW,
        silent_seconds=1.0,
        lease_seconds=30.0,
        ended_at=None,
    )
    return replace(seen, **changes)


def drawn(seen: Snapshot, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(render(seen, width, height))
    output = console.file
    assert isinstance(output, io.StringIO)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_what_the_view_shows() -> None:
    lines = drawn(snapshot())
    assert lines[0] == "digits-cnn  running  10 of 40 trials: 2 running, 0 pruned, 0 failed"
    assert lines[1].endswith("1 m 05 s elapsed, expected end in 9 m 50 s (12:09)")
    assert lines[2] == "best accuracy 0.909  trial 9, epoch 14"
    (header,) = [line for line in lines if "best: 9" in line]
    assert header.split() == ["best:", "9", "trial", "10", "trial", "11"]
    (rate,) = [line for line in lines if line.startswith("learning_rate[adamw]")]
    assert rate.split()[1:] == ["0.001235"] * 3
    assert [line.split()[-2:] for line in lines if line.startswith("trial 1")] == [["5/20", "0.5"]] * 2


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("height", [12, 24, 60])
@pytest.mark.parametrize("running", [0, 1, 64])
@pytest.mark.parametrize("knobs", [1, 5, 100])
@pytest.mark.parametrize("workers", [(worker(),), (worker(trials=0, busy=0, device="auto"),) * 50], ids=len)
def test_the_view_fits_every_terminal(
    width: int, height: int, running: int, knobs: int, workers: tuple[WorkerRecord, ...]
) -> None:
    seen = snapshot(running=running, knobs=tuple(f"a_rather_long_name_of_a_knob[{n}]" for n in range(knobs)))
    lines = drawn(replace(seen, workers=workers, trouble="the database is away " * 20), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_what_has_no_room_is_counted() -> None:
    lines = drawn(snapshot(running=64, knobs=tuple(f"knob{n}" for n in range(100))))
    assert sum("more" in line and "…" in line for line in lines) == 2


@pytest.mark.parametrize("width", [80, 120])
def test_what_workers_make_of_their_machines(width: int) -> None:
    gpu = GpuUsage(percent=71.0, memory_bytes=10 * 2**30, total_bytes=80 * 2**30)
    there = Usage(busy_cores=3.25, cores=16, memory_bytes=2**30, available_bytes=2**36, gpus=(gpu,))
    lines = drawn(snapshot(workers=(worker(), worker(pid=8, usage=None))), width)
    assert lines[-2:] == ["host:7  2/2 slots  1.9/2 cores  612 MiB, 3.0 GiB free", "host:8  2/2 slots"]
    lines = drawn(snapshot(workers=(worker(device="cuda:0", usage=there),)), width)
    assert lines[-1] == "host:7  2/2 slots  GPU 71 %, 10.0 GiB of 80.0 GiB  3.2/16 cores  1.0 GiB"


@pytest.mark.parametrize(
    ("changes", "study", "reason"),
    [
        ({}, {}, None),
        ({"busy": 1}, {}, None),  # about to claim, perhaps: nothing is known
        ({"busy": 1}, {"affordable": False}, "1 slot waits: the last 2 trials are running"),
        ({"busy": 0}, {"affordable": False, "running": 1}, "2 slots wait: the last trial is running"),
        ({"busy": 0}, {"state": StudyState.PAUSED, "running": 0}, "2 slots wait: the study is paused"),
        ({"busy": 1}, {"state": StudyState.STOPPING}, "1 slot waits: the study is stopping"),
        ({"busy": 0, "device": "auto"}, {}, "2 slots wait: training processes are starting"),
        ({"silent_seconds": 16.0}, {}, "not heard of for 16 s"),
        (
            {"silent_seconds": 47.0, "state": WorkerState.LOST},
            {},
            "lost, not heard of for 47 s: others take its trials",
        ),
    ],
)
def test_what_idle_slots_wait_for(changes: dict[str, Any], study: dict[str, Any], reason: str | None) -> None:
    lines = drawn(snapshot(workers=(worker(**changes),), **study))
    assert (lines[-1] == f"  {reason}") if reason else lines[-1].startswith("host:7")


def test_a_stack_takes_one_slot() -> None:
    stacked = worker(slots=8, trials=64, busy=1)
    lines = drawn(snapshot(running=64, affordable=False, workers=(stacked,)))
    assert lines[-2].startswith("host:7  1/8 slots")
    assert lines[-1] == "  7 slots wait: the last 64 trials are running"


def test_nothing_old_is_told_of_a_worker_that_is_silent() -> None:
    assert not any("cores" in line for line in drawn(snapshot(workers=(worker(silent_seconds=20.0),))))


def test_a_first_epoch_that_lasts_is_told() -> None:
    waiting = trial(10, epochs=0, latest=None, seconds=12.0)
    assert drawn(snapshot(open=(waiting,)))[-1].endswith("0/20  first epoch, for 12 s")


def test_the_expected_end_is_said_once_as_soon_as_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView(io.StringIO(), old_trials=False)
    begun = snapshot(finished=(), open=(trial(0, epochs=0), trial(1, epochs=0)))
    reported = replace(begun, open=(trial(0, epochs=1), trial(1, epochs=1)), reported={0: 2.0, 1: 2.0})
    for seen in (begun, reported, replace(reported, reported={0: 3.0, 1: 3.0})):
        view.show(seen)
    # 40 trials of 20 epochs, two of them trained: 798 at 2 s each, two at a time
    assert capsys.readouterr().err == "study digits-cnn: expected end in 13 m 18 s (12:13)\n"


def test_a_study_before_its_first_trial() -> None:
    lines = drawn(snapshot(ended=0, running=0))
    assert lines[-1] == "waiting for a worker"
    assert "expected end" not in "".join(lines)
    assert drawn(snapshot(ended=0, running=0, awaited="the worker is starting"))[-1] == "the worker is starting"


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, (28 * 20 + 2 * 15) * 2 / 2),
        ({"state": StudyState.STOPPING}, 2 * 15 * 2 / 2),
        ({"budget": BudgetConfig(total_epochs=310)}, 100 * 2 / 2),
        ({"budget": BudgetConfig(trials=40, seconds=500.0)}, 80 / 2),
        ({"open": ()}, None),
        ({"finished": (), "budget": BudgetConfig(trials=2)}, 2 * 15 * 2 / 2),
        ({"reported": {10: 5.0, 11: 5.0}}, (28 * 20 + 2 * 15) * (410 / 210) / 2),
        ({"finished": (), "open": (trial(0, epochs=0),)}, None),
    ],
)
def test_the_time_to_go_follows_the_budget(changes: dict[str, Any], seconds: float | None) -> None:
    """Ten trials of 20 epochs in 40 s each have ended; two more are at epoch 5."""
    assert snapshot(**changes).remaining_seconds == pytest.approx(seconds)


def test_the_best_is_of_complete_trials_in_the_metrics_direction() -> None:
    finished = (
        trial(0, Outcome.COMPLETE, 0.5),
        trial(1, Outcome.PRUNED, 0.1),
        trial(2, Outcome.COMPLETE, 0.2),
        trial(3, Outcome.COMPLETE, 0.2),
        trial(4, Outcome.COMPLETE, 0.7),
        trial(5, Outcome.DIVERGED),
    )
    best = snapshot(finished=finished, maximize=False).best
    assert best is not None
    assert best.number == 2
    best = snapshot(finished=finished, maximize=True).best
    assert best is not None
    assert best.number == 4


def test_a_finished_trial_is_one_line() -> None:
    assert line(trial(7, Outcome.COMPLETE, 0.98123), 20) == (
        "trial 7  complete  0.9812  epoch 14/20  layers 2  units[0] 32  learning_rate[adamw] 0.001235  optimizer adamw"
    )
    assert line(trial(8, Outcome.PRUNED, 0.5, epochs=3, params={}), 20) == "trial 8  pruned  0.5  epoch 3/20"
    crashed = trial(9, Outcome.CRASHED, epochs=1, params={}, reason="ValueError: \x1b[31mno\nsuch thing")
    assert line(crashed, 20) == r"trial 9  crashed  -  epoch 1/20  (ValueError: \x1b[31mno\nsuch thing)"


def test_lines_come_once_and_in_the_order_of_finishing(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (trial(n, Outcome.COMPLETE, 0.5, params={}) for n in (4, 2, 9))
    stream = io.StringIO()
    view = PlainView(stream, old_trials=True)
    for finished in ((), (first,), (first, second, third), (first, second, third)):
        view.show(snapshot(finished=finished, open=(), trouble=None if finished else "the database is away"))
    assert [line.split("  ")[0] for line in stream.getvalue().splitlines()] == ["trial 4", "trial 2", "trial 9"]
    assert capsys.readouterr().err == "the database is away\n"


def test_old_trials_are_passed_over_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    view = open_view(stream, old_trials=False)
    view.show(snapshot(ended=3))
    view.show(snapshot(ended=4))
    assert [line[:7] for line in stream.getvalue().splitlines()] == ["trial 3"]


def test_a_reader_reads_each_finished_trial_once(trained: tuple[Site, Done]) -> None:
    with Database(trained[0].url) as db:
        reader = SnapshotReader(db, "tiny")
        first, second = reader.look(), reader.look()
    assert [trial.finish_seq for trial in first.finished] == [1, 2, 3, 4]
    assert second.finished == first.finished
    assert first.state is StudyState.FINISHED
    assert list(first.knobs) == ["layers", "units", "learning_rate"]
