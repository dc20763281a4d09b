"""How trainings that share a thread give way to each other: as generators that stop after every step."""

from __future__ import annotations

from collections.abc import Generator
from enum import Enum
from typing import TypeVar

import torch

Answer = TypeVar("Answer")


class Turn(Enum):
    """What a training did with its turn."""

    STEPPED = "stepped"
    WAITED = "waited"  # for its device


Turns = Generator[Turn, None, Answer]


def done(device: torch.device) -> Turns[None]:
    """Gives way until the device has done all that was asked of it in the current stream; a CPU always has.

    Whoever reads a result after that does not wait, so that meanwhile others can go on.
    """
    if device.type == "cuda":
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        while not event.query():  # type: ignore[no-untyped-call]
            yield Turn.WAITED


def finish(turns: Turns[Answer]) -> Answer:
    """Takes all turns, one after the other."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            answer: Answer = end.value
            return answer
