"""Scoring a model on a part of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tuner.spec.config import Task, TrialConfig
from tuner.training import checkpoint, data
from tuner.training.batches import Batches, open_part
from tuner.training.data import PartName
from tuner.training.metrics import SUMS, Means
from tuner.training.models import build, with_weights
from tuner.training.randomness import CPU

# Examples at a time. On a CPU activations should stay in its cache: of a CNN on Fashion-MNIST 256 at once take
# twice as long as 64.
BATCH = {"cpu": 64}
LARGE_BATCH = 1024


@torch.inference_mode()
def evaluate(model: nn.Module, part: Batches, task: Task, step: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Metrics of the task, means over the part's examples; `step` is called after each batch."""
    model.eval()
    means = Means(part.device)
    for inputs, targets in part.batches(BATCH.get(part.device.type, LARGE_BATCH)):
        means.add(SUMS[task](model(inputs), targets), len(targets))
        step()
    return means.read()


def score(
    config: TrialConfig, kept: Path, data_folder: Path, part: PartName, device: torch.device = CPU
) -> dict[str, float]:
    """Metrics of a checkpoint's best epoch on a part of the prepared data. Raises ArtifactError, DataError."""
    info = data.info(data_folder)
    model = with_weights(build(config.model, info), checkpoint.load(kept).best.model).to(device)
    return evaluate(model, open_part(data.part(data_folder, part), info, device), info.task)
