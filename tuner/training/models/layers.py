"""Layers that take their randomness from outside, and what the families share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tuner.training.errors import InfeasibleModel

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Dropout(nn.Module):
    """Sets a share `p` of the activations to zero while training and scales the rest by 1 / (1 - p).

    torch's own draws from the global generator; this one draws from `generator`, which the training loop sets at
    the start of every epoch.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs
        if self.generator is None:
            raise RuntimeError("a Dropout in training mode needs a generator")
        keep = torch.empty_like(inputs).bernoulli_(1.0 - self.p, generator=self.generator)
        return inputs * keep.div_(1.0 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Normalise(nn.Module):
    """From inputs as they are stored (uint8 images, float32 sequences) to (x - mean) / std in float32.

    Images come out in the channels_last layout, in which convolution, batch norm and pooling are fastest.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, raw: Tensor) -> Tensor:
        # `raw.to(memory_format=...)` would keep the strides of an image with one channel, which then count as
        # contiguous, and the first convolution would take the slow path.
        layout = torch.channels_last if raw.dim() == 4 else torch.contiguous_format
        inputs = torch.empty(raw.shape, dtype=torch.float32, device=raw.device, memory_format=layout)
        return inputs.copy_(raw).sub_(self.mean).div_(self.std)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


def dropout(p: float) -> list[nn.Module]:
    """Nothing at all where there is nothing to drop."""
    return [Dropout(p)] if p > 0.0 else []


def per_layer(name: str, value: int | tuple[int, ...], layers: int) -> tuple[int, ...]:
    """One width a layer, from one for all or one each."""
    if isinstance(value, int):
        return (value,) * layers
    if len(value) != layers:
        raise InfeasibleModel(f"model.{name} holds {len(value)} values for {layers} layers; give one for each")
    return value
