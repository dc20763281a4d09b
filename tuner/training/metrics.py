"""Losses and metrics of each task; sums stay on the device until somebody asks for the means."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        "accuracy": outputs.argmax(1) == targets,
        "loss": F.cross_entropy(outputs, targets, reduction="none"),
    }


def _forecast(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    error = outputs - targets
    squared = error.square().mean(1)
    return {"mse": squared, "mae": error.abs().mean(1), "loss": squared}


# the same arguments to the metrics of each example, (n,) each; the mean of "loss" is that of LOSSES
METRICS: dict[Task, Callable[[Tensor, Tensor], dict[str, Tensor]]] = {
    "classification": _classification,
    "forecast": _forecast,
}


def _cross_entropy(outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    targets = targets.unsqueeze(1)
    # Over the middle dimension: over the last one torch takes ten times as long.
    logarithms = torch.log_softmax(outputs.transpose(1, 2).contiguous(), 1)
    losses = logarithms.gather(1, targets).squeeze(1).neg_()
    errors = logarithms.exp_().scatter_add_(1, targets, torch.full_like(losses, -1.0).unsqueeze(1))
    return losses, errors.mul_(shares.unsqueeze(1)).transpose(1, 2).contiguous()


def _squared_error(outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    errors = outputs - targets
    losses = errors.square().mean(2)
    return losses, errors.mul_(shares.unsqueeze(2)).mul_(2.0 / outputs.shape[2])


# For several networks: (networks, n, …) outputs and targets, and what each example counts in its network's mean
# (networks, n), to the losses of the examples (networks, n) and the gradient of the means with respect to the outputs
GRADIENTS: dict[Task, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "classification": _cross_entropy,
    "forecast": _squared_error,
}


class Means:
    """Means over examples for each of several networks, summed in float64 on the device."""

    def __init__(self, networks: int, device: torch.device) -> None:
        self._zeros = torch.zeros(networks, dtype=torch.float64, device=device)
        self._sums: dict[str, Tensor] = {}
        self._examples = 0

    def add(self, sums: Mapping[str, Tensor], examples: int) -> None:
        """Sums over so many examples, (networks,) each."""
        for name, value in sums.items():
            if name not in self._sums:
                self._sums[name] = self._zeros.clone()
            self._sums[name].add_(value)
        self._examples += examples

    def read(self) -> list[dict[str, float]]:
        """For each network; the only synchronisation."""
        by_network = torch.stack(tuple(self._sums.values()), 1).div_(self._examples).tolist()
        return [dict(zip(self._sums, values, strict=True)) for values in by_network]
