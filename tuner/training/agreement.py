"""Whether this machine computes the same for a member of a stack whatever its companions: tried, not assumed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from tuner.spec.stacking import shape_of
from tuner.training.course import Member
from tuner.training.stack import Stack

log = logging.getLogger("tuner.training")

STEPS = 3

_agreed: dict[tuple[str | None, Path], int] = {}  # the largest number of members tried, by shape and data; 0: not one


def agree(members: Sequence[Member], data_folder: Path, device: torch.device) -> bool:
    """Takes a few steps with all members, and with the first and the last alone: the same bits must come of them.

    On a GPU, where they need not be the same, they agree by definition. Tried once for a shape and a number of members.
    """
    if device.type != "cpu":
        return True
    key = (shape_of(members[0].config), data_folder)
    tried = _agreed.get(key, 1)
    if tried < len(members) and tried > 0:
        together = _weights_after_steps(members, data_folder, device)
        alone = [_weights_after_steps([member], data_folder, device)[0] for member in (members[0], members[-1])]
        same = torch.equal(together[0], alone[0]) and torch.equal(together[-1], alone[1])
        if not same:
            log.warning("%d trials come to other bits together than alone, here: they train alone", len(members))
        _agreed[key] = len(members) if same else 0
    return _agreed[key] > 0


def _weights_after_steps(members: Sequence[Member], data_folder: Path, device: torch.device) -> list[torch.Tensor]:
    stack = Stack(members, data_folder, device)
    training = stack.train()
    for _ in range(STEPS):
        next(training, None)
    weights = (stack.weights(course).values() for course in stack.courses)
    return [torch.cat([value.flatten().double() for value in values]) for values in weights]
