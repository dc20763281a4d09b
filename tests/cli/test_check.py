"""`tuner check`: what it says of a file; it needs no database."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import Optimizer

from tests.cli.site import Cli, Site
from tuner.cli.advice import MOMENTUM_OPTIMIZERS
from tuner.spec.config import TrainingConfig
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
    assert said["model_parameters"] == {"smallest": 42, "largest": 354}
    assert said["infeasible"] == []
    estimate, at_once = said["estimate"], min(2, usable_cores())
    assert estimate["study_seconds"] == pytest.approx(1000 * estimate["trial_seconds"] / at_once)
    assert estimate["least_study_seconds"] == estimate["study_seconds"]  # nothing is pruned
    memory = estimate["memory"]
    assert memory["trials_that_fit"] == memory["available_bytes"] // memory["trial_bytes"]


def test_corners_say_what_they_cost(here: Site, spec_file: Path) -> None:
    overrides = ("data.points=40000", "model.units={choices: [8, 512]}", "training.batch_size={choices: [64, 9999]}")
    settings = [word for override in overrides for word in ("--set", override)]
    done = here.run("check", spec_file, *settings, "--device", "cpu", "--format", "json")
    assert done.code == 0, done.err
    corners = {(corner["model"], corner["batch_size"]): corner for corner in done.json["corners"]}
    assert list(corners) == [("smallest", 64), ("smallest", 9999), ("largest", 64), ("largest", 9999)]
    assert corners["smallest", 64]["knobs"] == {"layers": 1, "units": 8}
    assert corners["largest", 64]["knobs"] == {"layers": 2, "units": 512}
    parameters = done.json["model_parameters"]
    assert corners["smallest", 64]["parameters"] == parameters["smallest"]
    assert corners["largest", 64]["parameters"] == parameters["largest"]
    for batch_size in (64, 9999):
        small, large = corners["smallest", batch_size], corners["largest", batch_size]
        assert small["memory_bytes"] < large["memory_bytes"]
        assert small["epoch_seconds"] < large["epoch_seconds"]
    assert corners["largest", 64]["memory_bytes"] < corners["largest", 9999]["memory_bytes"]
    assert done.json["estimate"]["memory"]["trial_bytes"] >= corners["largest", 9999]["memory_bytes"]


def test_a_corner_beyond_the_memory_is_named(here: Site, spec_file: Path) -> None:
    overrides = ("model.units={choices: [8, 65536]}", "model.layers={choices: [1, 64]}")  # the largest: a terabyte
    settings = [word for override in overrides for word in ("--set", override)]
    done = here.run("check", spec_file, *settings, "--device", "cpu")
    assert done.code == 0, done.err
    assert "largest model with batch size 32: out of memory" in done.out
    assert any(line.startswith("smallest ") for line in done.out.splitlines())


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
    (line,) = [line for line in done.out.splitlines() if line.startswith("no grid for")]
    assert line.split()[-1] == "learning_rate"


def test_the_table_says_what_there_is_to_say(cli: Cli, spec_file: Path) -> None:
    out = cli("check", spec_file, "--slots", 1, "--device", "cpu").out
    for absent in ("no grid for", "infeasible", "baselines", "warnings", " -\n"):
        assert absent not in out
    (header, row) = [line for line in out.splitlines() if re.match("model  |smallest  .* MiB", line)][-2:]
    assert header.split() == ["model", "parameters", "batch", "size", "memory", "an", "epoch", "a", "trial"]
    assert row
    assert re.search(r"^memory  .* MiB for the largest trial; .* available: [\d,]+ fit at once$", out, re.MULTILINE)
    assert re.search(r"^a trial  .* s on average, on cpu$", out, re.MULTILINE)
    (study,) = [line for line in out.splitlines() if line.startswith("the study  ")]
    assert re.search(r"  .* s with 1 slot; started now it ends by .*\d\d:\d\d$", study)


def test_what_a_pruner_may_spare_is_told(cli: Cli, spec_file: Path) -> None:
    """Of 8 trials of 10 epochs two end whole, the others may end after the second."""
    pruner = "search.pruner={name: median, startup_trials: 2, min_epochs: 2}"
    settings = ("--set", pruner, "--set", "budget.trials=8", "--set", "training.epochs=10")
    estimate = cli("check", spec_file, *settings, "--format", "json").json["estimate"]
    share = (2 * 10 + 6 * 2) / (8 * 10)
    assert estimate["least_study_seconds"] == pytest.approx(share * estimate["study_seconds"])


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
