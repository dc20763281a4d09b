"""`tuner check`: what it says of a file; it needs no database."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import Optimizer

from tests.cli.site import Cli, Site
from tuner.cli.advice import MOMENTUM_OPTIMIZERS, on_precision
from tuner.search.beginning import sample
from tuner.spec.config import TrainingConfig
from tuner.spec.stacking import Engine
from tuner.spec.study import read_spec
from tuner.training.machine import usable_cores
from tuner.training.optimizers import OPTIMIZERS


def test_what_a_file_means(here: Site, spec_file: Path) -> None:
    here.environment["TUNER_DATABASE_URL"] = "postgresql://127.0.0.1:9/nowhere"
    done = here.run("check", spec_file, "--slots", 2, "--set", "budget.trials=1000", "--format", "json")
    assert done.code == 0, done.err
    said = done.json
    assert (said["searched_parameters"], said["grid_points"], said["no_grid_for"]) == (3, 12, [])
    assert said["data"]["name"] == "spiral"
    assert (said["data"]["train"], said["data"]["validation"], said["data"]["test"]) == (100, 50, 50)
    # one layer of 8: 2 * 8 + 8 and 8 * 2 + 2; two of 16: 2 * 16 + 16, 16 * 16 + 16 and 16 * 2 + 2
    assert said["model_parameters"] == {"fewest": 42, "most": 354}
    assert said["budget"] == {"trials": 1000}
    assert said["infeasible"] == []
    estimate, at_once = said["estimate"], min(2, usable_cores())
    single_seconds = 1000 * estimate["trial_seconds"] / at_once
    assert estimate["stackable"] == 1.0
    assert estimate["study_seconds"] == pytest.approx(single_seconds / estimate["engine_gain"])
    assert estimate["least_study_seconds"] == estimate["study_seconds"]  # nothing is pruned
    memory = estimate["memory"]
    assert memory["trials_that_fit"] == memory["available_bytes"] // memory["trial_bytes"]


def test_corners_say_what_they_cost(here: Site, spec_file: Path) -> None:
    overrides = ("data.points=40000", "model.units={choices: [8, 512]}", "training.batch_size={choices: [64, 9999]}")
    settings = [word for override in overrides for word in ("--set", override)]
    done = here.run("check", spec_file, *settings, "--device", "cpu", "--format", "json")
    assert done.code == 0, done.err
    corners = {(corner["model"], corner["batch_size"]): corner for corner in done.json["corners"]}
    assert list(corners) == [("least work", 64), ("least work", 9999), ("most work", 64), ("most work", 9999)]
    assert corners["least work", 64]["knobs"] == {"layers": 1, "units": 8}
    assert corners["most work", 64]["knobs"] == {"layers": 2, "units": 512}
    parameters = done.json["model_parameters"]
    assert corners["least work", 64]["parameters"] == parameters["fewest"]
    assert corners["most work", 64]["parameters"] == parameters["most"]
    for batch_size in (64, 9999):
        small, large = corners["least work", batch_size], corners["most work", batch_size]
        assert small["memory_bytes"] < large["memory_bytes"]
        assert small["epoch_seconds"] < large["epoch_seconds"]
    assert corners["most work", 64]["memory_bytes"] < corners["most work", 9999]["memory_bytes"]
    assert done.json["estimate"]["memory"]["trial_bytes"] >= corners["most work", 9999]["memory_bytes"]


def test_a_corner_beyond_the_memory_is_named(here: Site, spec_file: Path) -> None:
    overrides = ("model.units={choices: [8, 65536]}", "model.layers={choices: [1, 64]}")  # the largest: a terabyte
    settings = [word for override in overrides for word in ("--set", override)]
    done = here.run("check", spec_file, *settings, "--device", "cpu")
    assert done.code == 0, done.err
    assert "model of most work, batch size 32: out of memory" in done.out
    assert any(line.startswith("least work ") for line in done.out.splitlines())


def test_corners_that_cannot_be_built_and_ranges_without_a_grid_are_named(here: Site, spec_file: Path) -> None:
    spec_file.write_text("""\
study: corners
data: {name: digits}
model: {family: cnn, layers: {low: 1, high: 8}, pooling: max}
training: {epochs: 1, learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}
budget: {seconds: 60}
""")
    done = here.run("check", spec_file)
    assert done.code == 0, done.err
    assert "layers: 8" in done.out
    (line,) = [line for line in done.out.splitlines() if "grid" in line]
    assert line.endswith("endless: any value in a range for learning_rate (tpe needs no grid)")
    assert re.search(r"^budget  .* trials of at most 1 epochs, 1 m 00 s of training in all$", done.out, re.MULTILINE)


def test_the_table_says_what_there_is_to_say(cli: Cli, spec_file: Path) -> None:
    out = cli("check", spec_file, "--slots", 1, "--device", "cpu", "--set", "training.engine=single").out
    for absent in ("infeasible", "baselines", "warnings", "streamed", "advice  bfloat16", " -\n"):
        assert absent not in out
    (header, row) = [line for line in out.splitlines() if re.match("model  |least work  .* MiB", line)][-2:]
    assert header.split() == ["model", "parameters", "batch", "size", "memory", "an", "epoch", "a", "trial"]
    assert row
    assert re.search(r"^grid points +12$", out, re.MULTILINE)
    assert re.search(r"^budget +4 trials of at most 3 epochs$", out, re.MULTILINE)
    assert re.search(
        r"^memory  .* MiB for the trial that takes most; .* available: [\d,]+ fit at once$", out, re.MULTILINE
    )
    assert re.search(r"^a trial  .* s on average, trained singly, on cpu$", out, re.MULTILINE)
    assert re.search(r"^engine +as the file says: single$", out, re.MULTILINE)
    (study,) = [line for line in out.splitlines() if line.startswith("the study  ")]
    assert re.search(r"  .* s on this machine alone with 1 slot; started now it ends by .*\d\d:\d\d$", study)


def test_what_stacks_gain_is_told_and_counts(cli: Cli, spec_file: Path) -> None:
    """Networks of 8 units: many times as fast together on any machine, but for those that cannot be stacked."""
    overrides = ("model={family: mlp, units: 8}", "training.optimizer={choices: [sgd, rmsprop]}", "budget.trials=40")
    settings = [word for override in overrides for word in ("--set", override)]
    estimate = cli("check", spec_file, *settings, "--slots", 1, "--format", "json").json["estimate"]
    assert estimate["engine"]["name"] == "stacks"
    assert estimate["engine_gain"] > 1
    share = estimate["stackable"]
    assert 0 < share < 1
    seconds = 40 * estimate["trial_seconds"] * (1 - share + share / estimate["engine_gain"])
    assert estimate["study_seconds"] == pytest.approx(seconds)
    out = cli("check", spec_file, *settings, "--slots", 1, "--device", "cpu").out
    engine = (
        r"auto: stacks of up to \d+, \d+\.\d x as fast as single trials for the \d\d% of trials that can be stacked"
    )
    assert re.search(f"^engine +{engine}$", out, re.MULTILINE)


def test_engines_are_compared_by_stacks_that_there_can_be(spec_file: Path) -> None:
    def groups(*overrides: str, slots: int = 1, compared: bool = False) -> list[int]:
        spec = read_spec(spec_file, ["model={family: mlp, units: 8}", "budget.trials=40", *overrides])
        return [group.trials for group in sample(spec, slots=slots, compared=compared).groups]

    assert groups() == [40]
    assert groups(slots=3) == [14, 14, 12]  # of which each gets its share
    assert groups("budget={total_epochs: 30}") == [10]  # of three epochs
    assert groups("training.engine=single") == []
    tpe, shapes = "search={method: tpe, parallel_proposals: 8}", "model.units={choices: [8, 16]}"
    assert groups(tpe) == [8] * 5
    assert groups("search.method=tpe") == []
    assert groups("search.method=tpe", "training.engine=stacks") == [1] * 40
    assert groups("search.method=tpe", compared=True) == [40]
    assert sum(groups(shapes)) == 40
    assert len(groups(shapes)) == 2
    assert sum(groups(tpe, shapes)) == 40
    assert max(groups(tpe, shapes)) < 8  # those of one shape that follow each other
    assert sum(groups("training.optimizer={choices: [sgd, rmsprop]}")) < 40


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["search.method=tpe"], r"auto: single, tpe proposes one trial at a time \(search.parallel_proposals\)"),
        (["search.method=tpe", "training.engine=stacks"], r"as the file says: stacks of up to 1, .* x as fast as .*"),
        (["training.optimizer=rmsprop", "training.engine=stacks"], "single, none of these trials can be stacked"),
    ],
)
def test_why_an_engine_is_what_it_is(cli: Cli, spec_file: Path, overrides: list[str], says: str) -> None:
    out = cli("check", spec_file, *(word for override in overrides for word in ("--set", override))).out
    assert re.search(f"^engine +{says}$", out, re.MULTILINE)


def test_that_stacks_do_not_pay_is_told(cli: Cli, spec_file: Path) -> None:
    settings = ("--set", "model.units=512", "--set", "training.batch_size=100", "--set", "data.points=2000")
    out = cli("check", spec_file, *settings).out
    assert re.search(r"^engine +auto: single, stacks would not be faster$", out, re.MULTILINE)


def test_what_a_pruner_may_spare_is_told(cli: Cli, spec_file: Path) -> None:
    """Of 8 trials of 10 epochs two end whole, the others may end after the second."""
    pruner = "search.pruner={name: median, startup_trials: 2, min_epochs: 2}"
    settings = ("--set", pruner, "--set", "budget.trials=8", "--set", "training.epochs=10")
    estimate = cli("check", spec_file, *settings, "--format", "json").json["estimate"]
    share = (2 * 10 + 6 * 2) / (8 * 10)
    assert estimate["least_study_seconds"] == pytest.approx(share * estimate["study_seconds"])


@pytest.mark.parametrize(
    ("overrides", "alone"),
    [
        ([], True),
        (["training.engine=single"], False),
        (["training.optimizer=rmsprop"], False),
        (["search.method=tpe"], False),
        (["search={method: tpe, parallel_proposals: 4}"], True),
    ],
)
def test_that_bfloat16_excludes_stacks_is_told_where_there_could_be_some(
    spec_file: Path, overrides: list[str], alone: bool
) -> None:
    advice = on_precision(read_spec(spec_file, ["training.precision=bfloat16", *overrides]), None, None, 1.0)
    assert advice == ("bfloat16: each trial trains singly, there are no stacks" if alone else None)


def test_advice_on_precision_is_the_last_line(cli: Cli, spec_file: Path) -> None:
    *_, last = cli("check", spec_file, "--set", "training.precision=bfloat16").out.splitlines()
    assert re.fullmatch("advice +bfloat16: each trial trains singly, there are no stacks", last)


def test_what_bfloat16_gains_is_compared_with_stacks(spec_file: Path) -> None:
    spec, told = read_spec(spec_file), "the model of most work 1.8 x as fast as float32 does singly"
    single, stacks = Engine(name="single"), Engine(name="stacks", members=8)
    assert (on_precision(spec, 1.84, None, 1.0) or "").endswith(told)
    assert (on_precision(spec, 1.84, single, 1.0) or "").endswith(told)
    assert (on_precision(spec, 1.84, stacks, 1.3) or "").endswith(f"{told}; it excludes stacks")
    assert (on_precision(spec, 1.84, stacks, 0.6) or "").endswith("stacks")  # the file asks for them
    assert on_precision(spec, 1.84, stacks, 1.7) is None
    assert on_precision(spec, 1.1, single, 1.0) is None
    assert on_precision(spec, 1.1, stacks, 0.6) is None


def test_data_that_will_be_streamed_is_told(cli: Cli, spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = ("--set", "data.points=100000")  # half of them in the training part, each of 2 x 4 + 8 bytes
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", "0.5")
    assert cli("check", spec_file, *points, "--format", "json").json["data"]["streamed"] == (
        "from disk: the training part has 781 KiB, more than the 512 KiB it may have (TUNER_DATA_MEMORY_MB)"
    )
    out = cli("check", spec_file, *points).out
    assert re.search(r"^engine +single, streamed data cannot be stacked$", out, re.MULTILINE)


def test_a_knob_with_a_value_for_each_layer_is_one_parameter(cli: Cli, spec_file: Path) -> None:
    each = "{each: model.layers, choices: [8, 16]}"
    done = cli("check", spec_file, "--set", f"model.units={each}", "--format", "json")
    assert done.json["searched_parameters"] == 3


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["search.pruner={name: median, min_epochs: 30}"], "median never prunes: min_epochs 30, trials have 3 epochs"),
        (["search.pruner=median"], "median never prunes: startup_trials 5, the budget has 4 trials"),
        (["training.momentum={low: 0.0, high: 0.9}"], "training.momentum has no effect: only rmsprop and sgd use it"),
        (["training.momentum=0.9", "training.optimizer={choices: [adam, adamw]}"], "training.momentum has no effect"),
        (["training.momentum=0.9", "training.optimizer={choices: [adam, sgd]}"], None),
        (["search.pruner={name: median, min_epochs: 3, startup_trials: 3}"], None),
    ],
)
def test_what_can_have_no_effect_is_told(cli: Cli, spec_file: Path, overrides: list[str], says: str | None) -> None:
    settings = [word for override in overrides for word in ("--set", override)]
    told = cli("check", spec_file, *settings, "--format", "json").json["warnings"]
    assert [says in line for line in told] == [True] if says else told == []
    launched = cli("launch", spec_file, *settings, "--workers", 0).err
    assert ("warning: " in launched) is bool(says)


def test_momentum_is_what_these_optimizers_have() -> None:
    assert {name for name, build in OPTIMIZERS.items() if _has_momentum(build)} == MOMENTUM_OPTIMIZERS


def _has_momentum(build: Callable[..., Optimizer]) -> bool:
    weight = torch.nn.Parameter(torch.zeros(1))
    return "momentum" in build([weight], TrainingConfig(momentum=0.5), torch.device("cpu")).defaults


def test_a_device_that_is_not_there_is_told(cli: Cli, spec_file: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = cli("check", spec_file, "--device", "cuda")
    assert (done.code, done.out) == (2, "")
    assert "no CUDA device" in done.err


def test_faults_are_told_as_by_launch(cli: Cli, spec_file: Path) -> None:
    spec_file.write_text(spec_file.read_text().replace("layers", "leyers").replace("name: spiral", "name: spirals"))
    done = cli("check", spec_file)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 2
