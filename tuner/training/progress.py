"""How a training says that it lives, and where it stands."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol


class Phase(IntEnum):
    """Each phase has a time limit of its own: a first step may take longer than a thousandth."""

    IDLE = 0
    PREPARE = 1  # the data set
    START = 2  # load the data, build the model, read the checkpoint
    TRAIN = 3
    EVALUATE = 4
    SAVE = 5


class Progress(Protocol):
    def enter(self, phase: Phase) -> None: ...

    def tick(self) -> None:
        """A step was made: called at every training step and evaluation batch, so it has to be cheap."""


class NoProgress:
    """For trainings that nobody watches."""

    def enter(self, phase: Phase) -> None:
        pass

    def tick(self) -> None:
        pass
