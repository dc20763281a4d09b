"""Optimizers of a stack: a step of all members at once, on matrices with a row for each.

The formulas are those of torch.optim, with a column of each hyperparameter in place of a number. A few operations on
whole matrices, and no reduction: a row's arithmetic depends on nothing but that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tuner.spec.config import TrainingConfig

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch's defaults, which the single engine uses as well


class StackOptimizer(Protocol):
    moments: list[Tensor]  # (members, width) each: what it remembers of earlier gradients

    def begin(self, taken: Sequence[int], steps: int) -> None:
        """Before so many steps, for members that have taken so many before."""

    def step(self, weights: Tensor, gradients: Tensor, index: int) -> None:
        """The `index`th step since `begin`; both matrices are (members, width). Gradients are not needed after it."""


class Sgd:
    """Momentum as in Sutskever et al. (2013, ICML), dampening 0, not Nesterov's."""

    MOMENTS = 1

    def __init__(self, configs: Sequence[TrainingConfig], moments: list[Tensor]) -> None:
        self.moments = moments
        self._decay = _column(moments[0], [config.weight_decay for config in configs])
        self._momentum = _column(moments[0], [config.momentum for config in configs])
        self._descent = _column(moments[0], [-config.learning_rate for config in configs])

    def begin(self, taken: Sequence[int], steps: int) -> None:
        pass

    def step(self, weights: Tensor, gradients: Tensor, index: int) -> None:
        (velocity,) = self.moments
        gradients.addcmul_(weights, self._decay)
        velocity.mul_(self._momentum).add_(gradients)
        weights.addcmul_(velocity, self._descent)


class Adam:
    """Kingma and Ba (2015, ICLR); weight decay is a term of the gradient."""

    MOMENTS = 2

    def __init__(self, configs: Sequence[TrainingConfig], moments: list[Tensor]) -> None:
        self.moments = moments
        self._rates = torch.tensor([config.learning_rate for config in configs], dtype=torch.float64).unsqueeze(1)
        self._decays = torch.tensor([config.weight_decay for config in configs], dtype=torch.float64).unsqueeze(1)
        self._decay = self._decays.to(moments[0])
        self._squares = torch.empty_like(moments[0])

    def begin(self, taken: Sequence[int], steps: int) -> None:
        # Bias corrections of all the steps to come: (steps, members, 1). weights -= rate / c1 * m / (sqrt(v / c2) +
        # epsilon) is computed as weights += m / (sqrt(v) * scale + offset).
        count = torch.arange(1, steps + 1).view(-1, 1, 1) + torch.tensor(taken).view(1, -1, 1)
        correction1 = 1.0 - torch.tensor(BETA1, dtype=torch.float64) ** count
        correction2 = 1.0 - torch.tensor(BETA2, dtype=torch.float64) ** count
        descent = -self._rates / correction1
        self._scales = (1.0 / (correction2.sqrt() * descent)).to(self.moments[0])
        self._offsets = (EPSILON / descent).to(self.moments[0])

    def step(self, weights: Tensor, gradients: Tensor, index: int) -> None:
        mean, square = self.moments
        self.decay(weights, gradients)
        mean.lerp_(gradients, 1.0 - BETA1)
        square.mul_(BETA2).addcmul_(gradients, gradients, value=1.0 - BETA2)
        torch.sqrt(square, out=self._squares).mul_(self._scales[index]).add_(self._offsets[index])
        weights.addcdiv_(mean, self._squares)

    def decay(self, weights: Tensor, gradients: Tensor) -> None:
        gradients.addcmul_(weights, self._decay)


class AdamW(Adam):
    """Loshchilov and Hutter (2019, ICLR): weight decay shrinks the weights themselves."""

    def __init__(self, configs: Sequence[TrainingConfig], moments: list[Tensor]) -> None:
        super().__init__(configs, moments)
        self._kept = (1.0 - self._rates * self._decays).to(moments[0])

    def decay(self, weights: Tensor, gradients: Tensor) -> None:
        weights.mul_(self._kept)


STACK_OPTIMIZERS: dict[str, type[Sgd] | type[Adam]] = {"sgd": Sgd, "adam": Adam, "adamw": AdamW}


def _column(like: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1).to(like)
