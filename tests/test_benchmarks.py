"""Benchmarks are fair: every contestant is given the same networks, and the arithmetic is counted right."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.search import SAMPLERS, History
from tuner.spec.study import StudySpec, read_spec
from tuner.training.data import DataInfo
from tuner.training.models import parameter_count

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FILES = sorted(BENCHMARKS.glob("workloads/*.yaml"))
SHAPES: dict[str, tuple[Any, ...]] = {  # of an example, kind, outputs
    "digits": ((1, 8, 8), "image", 10),
    "fashion_mnist": ((1, 28, 28), "image", 10),
    "etth1": ((96, 7), "sequence", 24),
    "spiral": ((2,), "vector", 2),
}
# Knobs that do not change how many parameters there are, and that the plain script has at tuner's defaults only.
UNKNOWN = {"pooling", "batch_norm", "cell", "bidirectional", "relative_to_last"}


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module as a script of the folder does."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def data_info(spec: StudySpec) -> DataInfo:
    shape, kind, outputs = SHAPES[spec.data.name]
    return DataInfo(
        task=spec.data.task,
        kind=kind,
        input_shape=shape,
        outputs=outputs,
        mean=0.0,
        std=1.0,
        sizes={"train": 100, "validation": 10, "test": 10},
        target_feature=None,
        baselines={},
        digest="",
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_plain_script_builds_the_networks_that_tuner_builds(file: Path, benchmarks: Any) -> None:
    plain, jobs = benchmarks("plain"), benchmarks("jobs")
    spec = read_spec(file)
    data = data_info(spec)
    for number in range(spec.budget.trials or 0):
        point = SAMPLERS["random"](spec.space, History(direction=spec.objective.direction), spec.search.seed, number)
        config = spec.space.resolve(point)
        knobs = jobs.flat(config)
        with torch.device("meta"):
            model = plain.MODELS[config.model.family](knobs, data.input_shape, data.outputs)
        own = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert own == parameter_count(config.model, data)
        unknown = type(config.model).model_fields.keys() & UNKNOWN
        assert all(knobs[name] == type(config.model).model_fields[name].default for name in unknown)


def test_a_space_that_the_plain_script_cannot_search_is_refused(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_HOME", str(tmp_path))
    conditional = BENCHMARKS.parent / "search_spaces" / "spiral_mlp.yaml"
    with pytest.raises(SystemExit, match="no values for each layer"):
        benchmarks("jobs").make_job(conditional, ["search.method=random", "budget.trials=4"])


def test_studies_of_the_benchmark_of_pruning_are_valid(benchmarks: Any) -> None:
    pruning = benchmarks("pruning")
    for name, workload in pruning.WORKLOADS.items():
        for pruner in pruning.PRUNERS:
            sets = [*workload.sets, *pruning.QUICK, f"search.pruner={pruner}"]
            assert read_spec(pruning.FILES[name], sets).search.pruner.name == pruner


def test_arithmetic_is_counted_also_where_torch_has_an_operator_of_its_own(benchmarks: Any) -> None:
    trial_flops = benchmarks("arithmetic").trial_flops
    knobs = {"family": "rnn", "layers": 1, "units": 8, "dropout": 0.0, "epochs": 3}
    data = data_info(read_spec(BENCHMARKS / "workloads" / "etth1.yaml"))
    steps, features = data.input_shape
    gates, readout = 2 * 4 * 8 * (features + 8), 2 * 8 * data.outputs
    forward = steps * gates + readout
    to_weights, to_states = forward, (steps - 1) * 2 * 4 * 8 * 8 + readout
    expected = 3 * (100 * (forward + to_weights + to_states) + 10 * forward)
    assert trial_flops(knobs, data) == pytest.approx(expected, rel=0.01)


def test_arithmetic_of_a_convolution_leaves_out_the_gradient_of_the_images(benchmarks: Any) -> None:
    trial_flops = benchmarks("arithmetic").trial_flops
    knobs = {"family": "cnn", "layers": 1, "channels": 16, "kernel": 3, "dropout": 0.0, "dense_units": 32}
    data = data_info(read_spec(BENCHMARKS / "workloads" / "digits.yaml"))
    convolution, dense = 2 * 8 * 8 * 16 * 9, 2 * (16 * 4 * 4 * 32 + 32 * 10)
    expected = 100 * (2 * convolution + 3 * dense) + 10 * (convolution + dense)
    assert trial_flops({**knobs, "activation": "relu", "epochs": 1}, data) == pytest.approx(expected, rel=0.01)
