"""Batches for all members of a stack at once, in the layout that their layers want."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.training.resident import CHUNK_BYTES, Resident


@dataclass(frozen=True)
class StackBatch:
    inputs: Tensor  # (n, members * channels, height, width) for convolutions, else (members, rows, *input_shape)
    targets: Tensor  # (members, rows) or (members, rows, horizon)
    count: int  # n, examples of each member; what the rows hold beyond is to be overlooked


class StackBatches:
    def __init__(self, members: int, *, maps: bool, multiple: int) -> None:
        """`maps`: for convolutions; `multiple`: of which the number of rows is one."""
        self.members = members
        self.maps = maps
        self.multiple = multiple

    def shuffled(self, part: Resident, orders: Tensor, size: int) -> Iterator[StackBatch]:
        """`size` examples at a time, of each member in its own order; `orders` are (members, n) on the CPU.

        As for one network, chunks of several batches are gathered and normalised at once.
        """
        orders = orders.to(part.targets.device)
        whole = orders.shape[1] // size * size
        bytes_a_batch = 4 * self.members * size * part.inputs[0].numel()
        chunk = size * max(1, CHUNK_BYTES // bytes_a_batch)
        for start in range(0, whole, chunk):
            chosen = orders[:, start : min(start + chunk, whole)]
            yield from self._gathered(part, chosen.reshape(self.members, -1, size))
        if whole < orders.shape[1]:
            yield from self._gathered(part, orders[:, None, whole:])

    def shared(self, part: Resident, size: int) -> Iterator[StackBatch]:
        """`size` examples at a time as they are stored, the same for every member."""
        for start in range(0, len(part), size):
            inputs, targets = part.inputs[start : start + size], part.targets[start : start + size]
            count = len(targets)
            steps = (1, self.members, count)
            yield from self._batches(
                part, inputs.expand(steps[:2] + inputs.shape), targets.expand(steps[:2] + targets.shape), count
            )

    def _gathered(self, part: Resident, chosen: Tensor) -> Iterator[StackBatch]:
        """`chosen` are positions (members, steps, n)."""
        chosen = chosen.transpose(0, 1)
        flat = chosen.flatten()
        inputs = part.inputs.index_select(0, flat).view(chosen.shape + part.inputs.shape[1:])
        targets = part.targets.index_select(0, flat).view(chosen.shape + part.targets.shape[1:])
        return self._batches(part, inputs, targets, chosen.shape[2])

    def _batches(self, part: Resident, raw: Tensor, raw_targets: Tensor, count: int) -> Iterator[StackBatch]:
        """From inputs and targets as they are stored, (steps, members, n, *shape)."""
        steps, device = len(raw), raw.device
        rows = -(-count // self.multiple) * self.multiple
        targets = torch.zeros(
            (steps, self.members, rows, *raw_targets.shape[3:]), dtype=raw_targets.dtype, device=device
        )
        targets[:, :, :count] = raw_targets
        if self.maps:
            _, _, _, channels, height, width = raw.shape
            inputs = torch.empty((steps, count, height, width, self.members, channels), device=device)
            inputs.copy_(raw.permute(0, 2, 4, 5, 1, 3))
        else:
            inputs = torch.zeros((steps, self.members, rows, *raw.shape[3:]), device=device)
            inputs[:, :, :count] = raw
        inputs.sub_(part.normalise.mean).div_(part.normalise.std)
        if self.maps:
            inputs = inputs.flatten(4).permute(0, 1, 4, 2, 3)
        for inputs_of_step, targets_of_step in zip(inputs, targets, strict=True):
            yield StackBatch(inputs_of_step, targets_of_step, count)
