"""Scoring a model on a part of the data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tuner.spec.config import Task, TrialConfig
from tuner.training import checkpoint, data
from tuner.training.batches import Batches, open_part
from tuner.training.data import PartName
from tuner.training.metrics import METRICS, Means
from tuner.training.models import build, with_weights
from tuner.training.randomness import CPU
from tuner.training.turns import Turn, Turns, done, finish

# Examples at a time. On a CPU activations should stay in its cache: of a CNN on Fashion-MNIST 256 at once take
# twice as long as 64.
BATCH = {"cpu": 64}
LARGE_BATCH = 1024


def batch_size(device: torch.device) -> int:
    return BATCH.get(device.type, LARGE_BATCH)


def evaluation(model: nn.Module, part: Batches, task: Task) -> Turns[list[dict[str, float]]]:
    """Metrics of the task, means over the part's examples, for this one model; a batch at a time."""
    model.eval()
    means = Means(1, part.device)
    for inputs, targets in part.batches(batch_size(part.device)):
        with torch.inference_mode():  # not around the loop: whoever takes the steps may do others between them
            metrics = METRICS[task](model(inputs), targets)
            means.add({name: values.sum() for name, values in metrics.items()}, len(targets))
        yield Turn.STEPPED
    yield from done(part.device)
    return means.read()


def score(
    config: TrialConfig, kept: Path, data_folder: Path, part: PartName, device: torch.device = CPU
) -> dict[str, float]:
    """Metrics of a checkpoint's best epoch on a part of the prepared data. Raises ArtifactError, DataError."""
    info = data.info(data_folder)
    model = with_weights(build(config.model, info), checkpoint.load(kept).best.model).to(device)
    return evaluate(model, open_part(data.part(data_folder, part), info, device), info.task)


def evaluate(model: nn.Module, part: Batches, task: Task) -> dict[str, float]:
    """The same at once."""
    return finish(evaluation(model, part, task))[0]
