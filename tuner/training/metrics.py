"""Losses and metrics of each task; sums stay on the device until somebody asks for the means."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import Tensor

from tuner.spec.config import Task

# (n, classes) and int64 (n,), or twice (n, horizon), to a scalar: the mean that is minimised
LOSSES: dict[Task, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": F.cross_entropy,
    "forecast": F.mse_loss,
}


def _classification(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    return {
        "accuracy": (outputs.argmax(1) == targets).sum(),
        "loss": F.cross_entropy(outputs, targets, reduction="sum"),
    }


def _forecast(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    error = outputs - targets
    squared = error.square().mean(1).sum()
    return {"mse": squared, "mae": error.abs().mean(1).sum(), "loss": squared}


# the same arguments to sums over the examples of a batch
SUMS: dict[Task, Callable[[Tensor, Tensor], dict[str, Tensor]]] = {
    "classification": _classification,
    "forecast": _forecast,
}


class Means:
    """Means over examples, summed in float64 on the device; reading them is the only synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._examples = 0

    def add(self, sums: dict[str, Tensor], examples: int) -> None:
        for name, value in sums.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros((), dtype=torch.float64, device=self._device)
            self._sums[name].add_(value)
        self._examples += examples

    def read(self) -> dict[str, float]:
        values = torch.stack(tuple(self._sums.values())).tolist()
        return {name: value / self._examples for name, value in zip(self._sums, values, strict=True)}
