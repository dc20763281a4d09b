"""A member's weights as one row: where each parameter stands in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.training.models.stacked import BLOCK


@dataclass(frozen=True, kw_only=True)
class _Columns:
    start: int
    stop: int
    shape: tuple[int, ...]  # of one member's parameter, as a stacked layer holds it

    def of(self, rows: Tensor) -> Tensor:
        """(members, *shape), a view of (members, width)."""
        return rows[:, self.start : self.stop].view(len(rows), *self.shape)


class Rows:
    """The layout of rows for parameters of these shapes, each of which begins at a multiple of BLOCK."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._columns: list[_Columns] = []
        self.width = 0
        for shape in shapes:
            self._columns.append(_Columns(start=self.width, stop=self.width + math.prod(shape), shape=shape))
            self.width = -(-self._columns[-1].stop // BLOCK) * BLOCK

    def views(self, matrix: Tensor) -> list[Tensor]:
        """Of a matrix (members, width): what belongs to each parameter, (members, *shape)."""
        return [columns.of(matrix) for columns in self._columns]

    def pack(self, parameters: Sequence[Tensor]) -> Tensor:
        """A row from the parameters of an ordinary network."""
        row = torch.zeros(self.width)
        for columns, parameter in zip(self._columns, parameters, strict=True):
            # Stacked convolutions keep their filters in the channels_last layout.
            values = parameter.permute(0, 2, 3, 1) if parameter.dim() == 4 else parameter
            row[columns.start : columns.stop] = values.detach().flatten()
        return row

    def unpack(self, row: Tensor) -> list[Tensor]:
        """The parameters of an ordinary network, views of a row."""
        views = [row[columns.start : columns.stop].view(columns.shape) for columns in self._columns]
        return [view.permute(0, 3, 1, 2) if view.dim() == 4 else view for view in views]


def parameters_of(network: nn.Module, state: Mapping[str, Tensor]) -> list[Tensor]:
    """Those of a state_dict, in the network's order."""
    return [state[name] for name, _ in network.named_parameters()]


def statistics_of(state: Mapping[str, Tensor]) -> list[Tensor]:
    """What batch norms keep, layer by layer: mean and variance."""
    return [value for name, value in state.items() if name.endswith(("running_mean", "running_var"))]
