"""Layers that take their randomness from outside, and the kit from which families build their networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from tuner.training.errors import InfeasibleModel

Layer = TypeVar("Layer")

LOWEST_WORD = torch.iinfo(torch.int64).min  # of those that are drawn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
POOLING: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class Kit(Protocol[Layer]):
    """Makes the layers that a family's network is a chain of, of whatever kind: one network's, or a stack's."""

    def convolution(self, channels: int, filters: int, kernel: int, *, bias: bool) -> list[Layer]:
        """One that keeps height and width."""

    def batch_norm(self, channels: int) -> Layer: ...

    def activation(self, name: str) -> Layer: ...

    def pooling(self, name: str) -> Layer:
        """Halves height and width."""

    def dropout(self, p: float) -> list[Layer]: ...

    def flatten(self) -> Layer:
        """(n, *shape) to (n, features)."""

    def flatten_map(self) -> Layer:
        """(n, channels, height, width) to (n, height * width * channels)."""

    def linear(self, features: int, units: int) -> Layer: ...


class Modules:
    """The kit of an ordinary network: torch's own layers. `models.stacked` has that of stacks."""

    def convolution(self, channels: int, filters: int, kernel: int, *, bias: bool) -> list[nn.Module]:
        if kernel % 2:
            return [nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=bias)]
        before, after = (kernel - 1) // 2, kernel // 2  # an even filter has no middle: one more on the far side
        return [nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(channels, filters, kernel, bias=bias)]

    def batch_norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels)

    def activation(self, name: str) -> nn.Module:
        return ACTIVATIONS[name]()

    def pooling(self, name: str) -> nn.Module:
        return POOLING[name](2)

    def dropout(self, p: float) -> list[nn.Module]:
        return [Dropout(p)] if p > 0.0 else []  # nothing at all where there is nothing to drop

    def flatten(self) -> nn.Module:
        return nn.Flatten()

    def flatten_map(self) -> nn.Module:
        return FlattenMap()

    def linear(self, features: int, units: int) -> nn.Module:
        return nn.Linear(features, units)


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
        # Maps lie in the channels_last layout; a draw in another order than that of memory costs a copy.
        inputs = inputs.permute(0, 2, 3, 1) if inputs.dim() == 4 else inputs
        keep = torch.empty(inputs.shape, dtype=inputs.dtype, device=inputs.device)
        kept = inputs * draw_kept(keep, self.p, self.generator)
        return kept.permute(0, 3, 1, 2) if inputs.dim() == 4 else kept

    def extra_repr(self) -> str:
        return f"p={self.p}"


def draw_kept(keep: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Fills a contiguous tensor with zeros, a share `p`, rounded to 1/65,536, and 1 / (1 - p).

    Sixteen random bits decide for a value: on processors that are not Intel's `bernoulli_` takes three to four times as
    long for a layer's activations. Comparing in place is vectorised, from integers to bools is not.
    """
    words = torch.empty(words_for(keep.numel()), dtype=torch.int64, device=keep.device)
    words.random_(LOWEST_WORD, None, generator=generator)
    kept = words.view(torch.int16)[: keep.numel()].view(keep.shape).lt_(kept_below(p))
    return torch.mul(kept, 1.0 / (1.0 - p), out=keep)


def words_for(values: int) -> int:
    """Words of 64 random bits for so many values."""
    return -(-values // 4)


def kept_below(p: float) -> int:
    """A value is kept where its sixteen bits, a signed number, are below this; zeros are where `p` is zero."""
    return min(round((1.0 - p) * 2**16), 2**16 - 1) - 2**15


class FlattenMap(nn.Module):
    """(n, channels, height, width) to (n, height * width * channels): a view of a map in the channels_last layout."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


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


def per_layer(name: str, value: int | tuple[int, ...], layers: int) -> tuple[int, ...]:
    """One width a layer, from one for all or one each."""
    if isinstance(value, int):
        return (value,) * layers
    if len(value) != layers:
        raise InfeasibleModel(f"model.{name} holds {len(value)} values for {layers} layers; give one for each")
    return value
