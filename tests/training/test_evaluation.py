from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tuner.training import data, evaluation
from tuner.training.evaluation import evaluate, score
from tuner.training.models.layers import Normalise
from tuner.training.resident import Resident

CPU = torch.device("cpu")


def resident(folder: Path, part: str = "validation") -> Resident:
    return Resident(data.part(folder, part), data.info(folder), CPU)


def whole(folder: Path, part: str = "validation") -> tuple[torch.Tensor, torch.Tensor]:
    """A part at once, by other means."""
    arrays, info = data.part(folder, part), data.info(folder)
    inputs = (torch.tensor(arrays.inputs.copy()).float() - info.mean) / info.std
    return inputs, torch.tensor(arrays.targets.copy())


@pytest.fixture
def linear() -> Callable[[int, int], nn.Module]:
    def make(features: int, outputs: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Flatten(), nn.Linear(features, outputs), nn.Dropout(0.5))

    return make


@pytest.mark.parametrize("batch", [1, 8, 36, 37, 1000])
def test_metrics_of_a_classifier_do_not_depend_on_the_batches(
    images: Path, linear: Any, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluation.BATCH, "cpu", batch)
    model = linear(64, 3)
    metrics = evaluate(model, resident(images), "classification")
    inputs, targets = whole(images)
    outputs = model.eval()(inputs)
    assert metrics == {
        "accuracy": pytest.approx((outputs.argmax(1) == targets).float().mean().item()),
        "loss": pytest.approx(F.cross_entropy(outputs, targets).item(), rel=1e-5),
    }


def test_metrics_of_a_forecast(windows: Path, linear: Any) -> None:
    model = linear(24, 3)
    metrics = evaluate(model, resident(windows), "forecast")
    inputs, targets = whole(windows)
    outputs = model.eval()(inputs)
    mse = pytest.approx(F.mse_loss(outputs, targets).item(), rel=1e-5)
    assert metrics == {"mse": mse, "mae": pytest.approx(F.l1_loss(outputs, targets).item(), rel=1e-5), "loss": mse}


@pytest.mark.parametrize("chunk_bytes", [1, 5_000, 10**9])
@pytest.mark.parametrize("size", [1, 7, 100, 200])
def test_batches_come_in_the_given_order_whatever_the_chunks(
    images: Path, size: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.training.resident.CHUNK_BYTES", chunk_bytes)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:93]
    batches = list(resident(images, "train").batches(size, order))
    inputs, targets = whole(images, "train")
    assert [len(targets) for _, targets in batches[:-1]] == [size] * (len(batches) - 1)
    assert torch.equal(torch.cat([batch for batch, _ in batches]), inputs[order])
    assert torch.equal(torch.cat([batch for _, batch in batches]), targets[order])


def test_arrays_are_used_where_they_are_mapped(images: Path) -> None:
    arrays = data.part(images, "train")
    on_cpu = Resident(arrays, data.info(images), CPU)
    assert on_cpu.inputs.data_ptr() == arrays.inputs.ctypes.data


def test_a_kept_model_scores_what_its_best_epoch_did(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    config = trial_config({"family": "cnn", "channels": 8, "dropout": 0.3}, learning_rate=0.03, epochs=5)
    training = run(config, images, tmp_path)
    best = max(training.curve, key=lambda metrics: metrics["accuracy"])
    scores = score(config, training.checkpoints[-1], images, "validation")
    assert scores == {name: best[name] for name in ("accuracy", "loss")}
    assert score(config, training.checkpoints[-1], images, "test") != scores


def test_normalise_leaves_what_it_is_given_alone() -> None:
    raw = torch.ones(2, 3)
    Normalise(1.0, 2.0)(raw)
    assert torch.equal(raw, torch.ones(2, 3))
