"""Arithmetic in bfloat16 with weights in float32 (Micikevicius et al. 2018, ICLR: mixed precision training).

bfloat16 has float32's range with three significant digits: layers compute in it, while the optimizer adds its small
steps to weights in float32, of which the layers get a rounded copy before each step.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tuner.training.models.rnn import RelativeToLast


class InBfloat16(nn.Module):
    """A copy of `model` that computes in bfloat16; float32 in, float32 out.

    Batch norms are shared with `model`: their statistics stay in float32.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        shared = {id(module): module for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
        self.model = copy.deepcopy(model, memo=dict(shared))  # what is there is not copied
        for module in self.model.modules():
            if not isinstance(module, nn.BatchNorm2d):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(torch.bfloat16)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(inputs.to(torch.bfloat16))
        return outputs.float()


class Bfloat16Weights:
    """The weights in float32 that the optimizer learns, and their copy in bfloat16 that computes."""

    def __init__(self, model: nn.Module) -> None:
        self.computing = _computing(model)
        copies = dict(zip(model.parameters(), self.computing.parameters(), strict=True))
        self._weights: list[Tensor] = [weight for weight, computed in copies.items() if weight is not computed]
        self._copies: list[Tensor] = [computed for weight, computed in copies.items() if weight is not computed]

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Of the copies, for the optimizer's step."""
        for weight, computed in zip(self._weights, self._copies, strict=True):
            weight.grad = None if computed.grad is None else computed.grad.float()
            computed.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Rounds the weights into the copies."""
        torch._foreach_copy_(self._copies, self._weights)


def _computing(model: nn.Module) -> nn.Module:
    if isinstance(model, RelativeToLast):  # what its forecast is relative to would lose its digits
        inner = _computing(model.model)
        return RelativeToLast(inner, model.target_feature, model.mean, model.std)
    return InBfloat16(model)
