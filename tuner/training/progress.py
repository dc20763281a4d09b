"""What a training and whoever runs it say to each other: signs of life, epochs, an order to stop, the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Protocol

from tuner.spec.config import TrialConfig
from tuner.states import Outcome


class Stop(Enum):
    GO_ON = "go on"
    AFTER_EPOCH = "after epoch"  # finish the epoch, checkpoint, return
    NOW = "now"  # return at the next step, without a checkpoint


@dataclass(frozen=True, kw_only=True)
class Epoch:
    epoch: int  # from 1
    value: float  # of the objective's metric
    metrics: Mapping[str, float]  # of the validation part, and "train_loss"
    seconds: float  # it took, with its evaluation; of trials trained together, the trial's share


@dataclass(frozen=True, kw_only=True)
class Result:
    outcome: Outcome | None  # None: stopped before its end
    reason: str | None
    epochs: int  # trained, in all attempts
    parameters: int  # of the model, 0 where none can be built


class Run(Protocol):
    """One attempt at a trial, as its training sees it: what to train, and whom to tell."""

    @property
    def config(self) -> TrialConfig: ...

    @property
    def seed(self) -> int:
        """Of the study's search."""

    @property
    def number(self) -> int: ...

    @property
    def folder(self) -> Path:
        """For its checkpoints."""

    @property
    def resume(self) -> Path | None:
        """The checkpoint to go on from."""

    def stop(self) -> Stop:
        """Asked at every step, so it has to be cheap."""

    def report(self, epoch: Epoch, checkpoint: Path | None) -> None:
        """An epoch was trained; `checkpoint`, below `folder`, where one was due."""

    def end(self, result: Result) -> None:
        """The last thing that is said of it."""


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
