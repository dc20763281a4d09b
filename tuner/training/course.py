"""One trial's way through its training: what it is, and what has come of it so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from tuner.spec.config import TrialConfig
from tuner.training import checkpoint
from tuner.training.checkpoint import Best, Checkpoint
from tuner.training.progress import Epoch
from tuner.training.randomness import Randomness

Weights = Mapping[str, Tensor]  # as torch's state_dict names them


@dataclass(frozen=True, kw_only=True)
class Member:
    """One trial to train."""

    config: TrialConfig
    seed: int  # of the study's search
    number: int


class Diverged(Exception):
    """The loss or a metric is not a finite number."""


class Course:
    def __init__(self, member: Member, data: str) -> None:
        """`data` is the digest of the data set."""
        self.config = member.config
        self.digest = checkpoint.digest(member.config, member.seed, member.number, data)
        own = member.config.training.seed == "trial"
        self.randomness = Randomness(seed=member.seed, number=member.number if own else None)
        self.epoch = 0  # epochs finished
        self.best: Best | None = None
        self.curve: tuple[dict[str, float], ...] = ()
        self.seconds = 0.0  # trained

    def restore(self, kept: Checkpoint) -> None:
        self.epoch, self.best, self.curve, self.seconds = kept.epoch, kept.best, kept.curve, kept.seconds

    def finish_epoch(self, metrics: dict[str, float], seconds: float, weights: Callable[[], Weights]) -> Epoch:
        """Counts the epoch, and keeps a copy of its weights where they are those that stand for the trial so far.

        Raises Diverged.
        """
        for name, value in metrics.items():
            self.check(name, value)
        self.epoch += 1
        self.curve += (metrics,)
        self.seconds += seconds
        value = metrics[self.config.objective.metric]
        if self.best is None or self.config.objective.value == "last" or self._better(value, self.best.value):
            self.best = Best(epoch=self.epoch, value=value, model=weights())
        return Epoch(epoch=self.epoch, value=value, metrics=metrics, seconds=seconds)

    def check(self, name: str, value: float) -> None:
        """Raises Diverged where a figure of the running epoch is not finite."""
        if not math.isfinite(value):
            raise Diverged(f"{name} became {value} in epoch {self.epoch + 1}")

    def checkpoint(self, model: Weights, optimizer: Mapping[str, object]) -> Checkpoint:
        """After an epoch. Where its tensors are those in use, it is to be saved before the next step."""
        if self.best is None:
            raise RuntimeError("before the first epoch's end there is nothing to keep")
        return Checkpoint(
            digest=self.digest,
            epoch=self.epoch,
            model=model,
            optimizer=optimizer,
            best=self.best,
            curve=self.curve,
            seconds=self.seconds,
        )

    def _better(self, value: float, other: float) -> bool:
        return value > other if self.config.objective.direction == "maximize" else value < other
