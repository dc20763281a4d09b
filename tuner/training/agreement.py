"""Whether this machine computes the same for a member of a stack whatever its companions: tried, not assumed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tuner.spec.stacking import shape_of
from tuner.training.course import Member
from tuner.training.stack import Stack

log = logging.getLogger("tuner.training")

_agreed: dict[tuple[str | None, Path], int] = {}  # the largest number of members tried, by shape and data; 0: not one


def agree(members: Sequence[Member], data_folder: Path, device: torch.device) -> bool:
    """Takes a few steps with all members, and with the first and the last alone: the same bits must come of them.

    On a GPU, where they need not be the same, they agree by definition. Tried once for a shape and a number of members.
    """
    if device.type != "cpu":
        return True
    key = (shape_of(members[0].config), data_folder)
    tried = _agreed.get(key, 1)
    if 0 < tried < len(members):
        together = Stack(members, data_folder, device).sample()
        alone = [Stack([member], data_folder, device).sample()[0] for member in (members[0], members[-1])]
        same = _same_bits(together[0], alone[0]) and _same_bits(together[-1], alone[1])
        if not same:
            log.warning("%d trials come to other bits together than alone, here: they train alone", len(members))
        _agreed[key] = len(members) if same else 0
    return _agreed[key] > 0


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """A member may have diverged, and no NaN equals another."""
    return torch.equal(one.view(torch.int32), other.view(torch.int32))
