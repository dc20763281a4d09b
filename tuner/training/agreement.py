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
PAIR = 2  # the smallest stack: a lone trial has a silent companion

_largest_agreed: dict[tuple[str | None, Path], int] = {}  # members, by shape and data; 0: not even few agree


def agree(members: Sequence[Member], data_folder: Path, device: torch.device) -> bool:
    """Takes a few steps with all members and with pairs of them: weights must be equal to the bit.

    On a GPU, where they need not be, they agree by definition. Tried once for a shape and a number of members.
    """
    key = (shape_of(members[0].config), data_folder)
    agreed = _largest_agreed.get(key, PAIR)
    if device.type != "cpu" or PAIR <= len(members) <= agreed:
        return True
    if agreed == 0:
        return False
    ends = [members[0], members[-1]]
    whole, pair = (_weights_after_steps(each, data_folder, device) for each in (members, ends))
    same = torch.equal(whole[0], pair[0]) and torch.equal(whole[-1], pair[-1])
    if not same:
        log.warning(
            "this machine computes other bits for %d members than for %d: none train together", len(members), PAIR
        )
    _largest_agreed[key] = len(members) if same else 0
    return same


def _weights_after_steps(members: Sequence[Member], data_folder: Path, device: torch.device) -> list[torch.Tensor]:
    stack = Stack(members, data_folder, device)
    training = stack.train()
    for _ in range(STEPS):
        next(training, None)
    return [
        torch.cat([value.flatten().double() for value in stack.weights(course).values()]) for course in stack.courses
    ]
