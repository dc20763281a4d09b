"""Layers of several networks of one shape at once: a *stack* of members that know nothing of each other.

Dense layers take (members, rows, features), a row an example, and multiply by batch. Convolutions take (n, members *
channels, height, width) and are grouped, a group a member, in the channels_last layout. A member's weights are one row
of a matrix, its gradients one of another: each layer has views of some of their columns (see `tuner.training.stack`).

The networks are chains, so each layer goes back by its own formula, straight into the matrix of gradients: autograd
would cost small networks as much as their arithmetic.

What a member computes must not depend on how many others there are, nor on its place among them, to the bit. The
vectorised loops of torch work on blocks and finish what remains by other instructions, so nothing may remain: members
and rows come in `multiples`. docs/speed.md tells what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from torch import Tensor

from tuner.training.models.layers import LOWEST_WORD, kept_below, words_for

aten = torch.ops.aten

BLOCK = 32  # floats: no vectorised loop of torch takes larger steps
CHANNELS = 16  # floats of the widest vector
MOMENTUM, EPSILON = 0.1, 1e-5  # of batch norms, as torch has them

Shape = tuple[int, ...]


class StackedLayer:
    """Goes forward and back; what back needs of forward it keeps until then."""

    shapes: tuple[Shape, ...] = ()  # of a member's parameters
    training = True

    def bind(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Gives it its parameters (members, *shape), and where their gradients go."""

    def forward(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        """From the gradient of its outputs, which may be overwritten, to that of its inputs, if that is `wanted`."""
        raise NotImplementedError


class StackedNetwork:
    """A chain of layers for so many members."""

    def __init__(self, layers: Sequence[StackedLayer], members: int) -> None:
        self.layers = layers
        self.members = members
        self._lowest = next(index for index, layer in enumerate(layers) if layer.shapes)  # nothing below it learns

    @property
    def shapes(self) -> list[Shape]:
        """Of a member's parameters, in the order of its ordinary network's."""
        return [shape for layer in self.layers for shape in layer.shapes]

    def bind(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        start = 0
        for layer in self.layers:
            own = slice(start, start + len(layer.shapes))
            layer.bind(parameters[own], gradients[own])
            start = own.stop

    def train(self, training: bool) -> None:
        for layer in self.layers:
            layer.training = training

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer.forward(inputs)
        return inputs

    def backward(self, gradient: Tensor) -> None:
        for index in range(len(self.layers) - 1, self._lowest - 1, -1):
            gradient = self.layers[index].backward(gradient, wanted=index > self._lowest)


class Stacked:
    """The kit of a stack (see `layers.Kit`)."""

    def __init__(self, members: int) -> None:
        self.members = members

    def convolution(self, channels: int, filters: int, kernel: int, *, bias: bool) -> list[StackedLayer]:
        return [Convolution(self.members, channels, filters, kernel, bias=bias)]

    def batch_norm(self, channels: int) -> StackedLayer:
        return BatchNorm(channels)

    def activation(self, name: str) -> StackedLayer:
        return Relu() if name == "relu" else Activation(name)

    def pooling(self, name: str) -> StackedLayer:
        return MaxPooling() if name == "max" else AveragePooling()

    def dropout(self, p: float) -> list[StackedLayer]:
        """Always one, since members differ in `p`, which the training sets."""
        return [Dropout()]

    def flatten(self) -> StackedLayer:
        return Flatten()

    def flatten_map(self) -> StackedLayer:
        return FlattenMap(self.members)

    def linear(self, features: int, units: int) -> StackedLayer:
        return Linear(features, units)


class Convolution(StackedLayer):
    """Keeps height and width. A member's filters are (filters, kernel, kernel, channels): torch's channels_last."""

    def __init__(self, members: int, channels: int, filters: int, kernel: int, *, bias: bool) -> None:
        self.members, self.filters = members, filters
        self.shapes = (
            ((filters, kernel, kernel, channels), (filters,)) if bias else ((filters, kernel, kernel, channels),)
        )
        self.padding = kernel // 2 if kernel % 2 else 0
        before, after = (kernel - 1) // 2, kernel // 2  # an even filter has no middle: one more on the far side
        self.margin = (before, after, before, after) if kernel % 2 == 0 else None

    def bind(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self.weight, self.bias = parameters[0], parameters[1] if len(parameters) > 1 else None
        self.gradients = gradients

    def forward(self, inputs: Tensor) -> Tensor:
        if self.margin is not None:
            inputs = F.pad(inputs, self.margin)
        self.inputs = inputs
        self.packed = self.weight.flatten(0, 1).permute(0, 3, 1, 2)
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv2d(inputs, self.packed, bias, padding=self.padding, groups=self.members)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        has_bias = self.bias is not None
        down, weight, bias = aten.convolution_backward(
            gradient, self.inputs, self.packed, [gradient.shape[1]] if has_bias else None,
            [1, 1], [self.padding] * 2, [1, 1], False, [0, 0], self.members, [wanted, True, has_bias],
        )  # fmt: skip
        self.gradients[0].copy_(weight.permute(0, 2, 3, 1).view_as(self.gradients[0]))
        if has_bias:
            self.gradients[1].copy_(bias.view(self.members, -1))
        if wanted and self.margin is not None:
            down = F.pad(down, [-width for width in self.margin])
        return down  # type: ignore[no-any-return]


class BatchNorm(StackedLayer):
    mean: Tensor  # (members, channels), running
    variance: Tensor

    def __init__(self, channels: int) -> None:
        self.shapes = ((channels,), (channels,))

    def bind(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self.weight, self.bias = parameters
        self.gradients = gradients

    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs, self.packed = inputs, self.weight.flatten()
        outputs, *self.batch = torch.native_batch_norm(
            inputs, self.packed, self.bias.flatten(), self.mean.view(-1), self.variance.view(-1),
            self.training, MOMENTUM, EPSILON,
        )  # fmt: skip
        return outputs

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        down, weight, bias = aten.native_batch_norm_backward(
            gradient, self.inputs, self.packed, self.mean.view(-1), self.variance.view(-1), *self.batch,
            True, EPSILON, [wanted, True, True],
        )  # fmt: skip
        for whole, own in zip(self.gradients, (weight, bias), strict=True):
            whole.copy_(own.view_as(whole))
        return down  # type: ignore[no-any-return]


class Linear(StackedLayer):
    def __init__(self, features: int, units: int) -> None:
        self.shapes = ((units, features), (units,))

    def bind(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self.weight, self.bias = parameters[0], parameters[1].unsqueeze(1)
        self.transposed = self.weight.transpose(1, 2)
        self.gradients = gradients

    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs = inputs
        return torch.baddbmm(self.bias, inputs, self.transposed)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        torch.bmm(gradient.transpose(1, 2), self.inputs, out=self.gradients[0])
        torch.sum(gradient, 1, out=self.gradients[1])
        return torch.bmm(gradient, self.weight) if wanted else gradient


class Relu(StackedLayer):
    """In place: no layer needs its own outputs to go back."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.outputs = inputs.relu_()
        return self.outputs

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        return aten.threshold_backward.grad_input(gradient, self.outputs, 0, grad_input=gradient)  # type: ignore[no-any-return]


# name -> forward; backward of the gradient, inputs and outputs
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "gelu": (F.gelu, lambda gradient, inputs, _: aten.gelu_backward(gradient, inputs)),
    "silu": (F.silu, lambda gradient, inputs, _: aten.silu_backward(gradient, inputs)),
    "elu": (F.elu, lambda gradient, inputs, _: aten.elu_backward(gradient, 1.0, 1.0, 1.0, False, inputs)),
    "leaky_relu": (F.leaky_relu, lambda gradient, inputs, _: aten.leaky_relu_backward(gradient, inputs, 0.01, False)),
    "tanh": (torch.tanh, lambda gradient, _, outputs: aten.tanh_backward(gradient, outputs)),
    "sigmoid": (torch.sigmoid, lambda gradient, _, outputs: aten.sigmoid_backward(gradient, outputs)),
}


class Activation(StackedLayer):
    def __init__(self, name: str) -> None:
        self._forward, self._backward = FUNCTIONS[name]

    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs, self.outputs = inputs, self._forward(inputs)
        return self.outputs

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        return self._backward(gradient, self.inputs, self.outputs)


class MaxPooling(StackedLayer):
    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs = inputs
        outputs, self.places = aten.max_pool2d_with_indices(inputs, [2, 2])
        return outputs  # type: ignore[no-any-return]

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        window = ([2, 2], [2, 2], [0, 0], [1, 1], False)
        return aten.max_pool2d_with_indices_backward(gradient, self.inputs, *window, self.places)  # type: ignore[no-any-return]


class AveragePooling(StackedLayer):
    def forward(self, inputs: Tensor) -> Tensor:
        self.inputs = inputs
        return F.avg_pool2d(inputs, 2)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        window = ([2, 2], [2, 2], [0, 0], False, True, None)
        return aten.avg_pool2d_backward(gradient, self.inputs, *window)  # type: ignore[no-any-return]


class Flatten(StackedLayer):
    """Of inputs: nothing learns below it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(2)


class FlattenMap(StackedLayer):
    """(n, members * channels, height, width) to (members, rows, height * width * channels), zero beyond n."""

    multiple = 1  # of which the number of rows is one

    def __init__(self, members: int) -> None:
        self.members = members

    def forward(self, inputs: Tensor) -> Tensor:
        by_member = _by_member(inputs, self.members)
        self.shape = by_member.shape
        return F.pad(by_member.flatten(2), (0, 0, 0, -len(inputs) % self.multiple))

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        count = self.shape[1]
        by_example = gradient[:, :count].reshape(self.shape).permute(1, 2, 3, 0, 4)
        return by_example.flatten(3).permute(0, 3, 1, 2)


class Dropout(StackedLayer):
    """As `layers.Dropout`, with each member's own share and generator."""

    def __init__(self) -> None:
        self.keep: Tensor | None = None
        self._drawing: Sequence[tuple[int, torch.Generator]] = ()

    def set(self, shares: Sequence[float], generators: Sequence[torch.Generator], members: int) -> None:
        """Of the first members; of the others nothing is dropped."""
        each = [*shares, *(0.0 for _ in range(members - len(shares)))]
        self._drawing = [pair for p, pair in zip(shares, enumerate(generators), strict=True) if p > 0.0]
        self._below = torch.tensor([kept_below(p) for p in each], dtype=torch.int16).unsqueeze(1)
        self._scales = torch.tensor([1.0 / (1.0 - p) for p in each])
        # Values of a member -> random bits (members, words), few where none are drawn; and their rows.
        self._words: dict[int, tuple[Tensor, Sequence[Tensor]]] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or not self._drawing:
            self.keep = None
            return inputs
        self.keep = torch.empty_like(inputs)
        self._draw(self.keep if inputs.dim() == 3 else _by_member(self.keep, len(self._scales)))
        return inputs * self.keep

    def _draw(self, keep: Tensor) -> None:
        """As `draw_kept` for each member (members, …), but of all at once: many calls for few values cost more."""
        members, values = len(keep), keep[0].numel()
        if values not in self._words:
            words = torch.zeros(members, words_for(values), dtype=torch.int64, device=keep.device)
            self._words[values] = words, words.unbind()
            self._below, self._scales = self._below.to(keep.device), self._scales.to(keep.device)
        words, rows = self._words[values]
        for index, generator in self._drawing:
            rows[index].random_(LOWEST_WORD, None, generator=generator)
        kept = words.view(torch.int16)[:, :values].lt_(self._below)  # rows that are not drawn are ones from now on
        torch.mul(kept.view(keep.shape), self._scales.view(members, *(1 for _ in keep.shape[1:])), out=keep)

    def backward(self, gradient: Tensor, *, wanted: bool) -> Tensor:
        return gradient if self.keep is None else gradient.mul_(self.keep)


def _by_member(maps: Tensor, members: int) -> Tensor:
    """(n, members * channels, height, width) to (members, n, height, width, channels): a view in channels_last."""
    count, channels, height, width = maps.shape
    return maps.view(count, members, channels // members, height, width).permute(1, 0, 3, 4, 2)


class Multiples(NamedTuple):
    """Numbers of members and of rows in a stack are multiples of these."""

    members: int
    rows: int


def multiples(layers: Sequence[StackedLayer]) -> Multiples:
    """Those of a stack of these layers, so that nothing depends on companions."""
    filters = [layer.filters for layer in layers if isinstance(layer, Convolution)]
    widths = [width for layer in layers if isinstance(layer, Linear) for width in layer.shapes[0]]
    # Within sums over examples a channel is in a block or in what remains; so is a value within an activation, unless
    # that rounds nothing.
    rounds = any(isinstance(layer, Activation) for layer in layers)
    block = BLOCK if rounds else CHANNELS
    return Multiples(
        members=math.lcm(*(block // math.gcd(block, width) for width in filters)),
        rows=math.lcm(*(BLOCK // math.gcd(BLOCK, width) for width in widths)),
    )
