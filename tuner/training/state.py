"""A trial between two epochs: all that changes while it trains, and the two passes that make an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tuner.spec.config import TrialConfig
from tuner.training import checkpoint, data
from tuner.training.batches import open_part
from tuner.training.checkpoint import Best, Checkpoint
from tuner.training.errors import InfeasibleModel
from tuner.training.evaluation import evaluate
from tuner.training.metrics import LOSSES
from tuner.training.models import build, materialise
from tuner.training.models.layers import Dropout
from tuner.training.optimizers import build_optimizer
from tuner.training.progress import Epoch
from tuner.training.randomness import Randomness

CHECK_STEPS = 100  # between two looks at whether the loss is finite; a look makes the host wait for the device


@dataclass(frozen=True, kw_only=True)
class Member:
    """One trial to train."""

    config: TrialConfig
    seed: int  # of the study's search
    number: int


class Diverged(Exception):
    """The loss or a metric is not a finite number."""


class State:
    """Model, optimizer, data and what came of them so far. Nothing outside of it is read or changed."""

    def __init__(self, member: Member, data_folder: Path, device: torch.device) -> None:
        """Ready for the first epoch. Raises InfeasibleModel, DataError."""
        self.config = member.config
        self.device = device
        self.info = data.info(data_folder)
        self.digest = checkpoint.digest(member.config, member.seed, member.number, self.info.digest)
        own = self.config.training.seed == "trial"
        self.randomness = Randomness(seed=member.seed, number=member.number if own else None)

        model = build(self.config.model, self.info)
        self.batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        if self.batch_norm and min(self.config.training.batch_size, self.info.sizes["train"]) == 1:
            raise InfeasibleModel("batch norm needs batches of two examples or more; raise training.batch_size")
        self.model = materialise(model, self.randomness.generator("weights")).to(device)
        self.optimizer = build_optimizer(self.model, self.config.training, device)
        self.loss = LOSSES[self.info.task]
        self.train_part = open_part(data.part(data_folder, "train"), self.info, device)
        self.validation_part = open_part(data.part(data_folder, "validation"), self.info, device)

        self.epoch = 0  # epochs finished
        self.best: Best | None = None
        self.curve: tuple[dict[str, float], ...] = ()
        self.seconds = 0.0  # trained

    def restore(self, kept: Checkpoint) -> None:
        self.model.load_state_dict(kept.model)
        self.optimizer.load_state_dict(dict(kept.optimizer))
        self.epoch, self.best, self.curve, self.seconds = kept.epoch, kept.best, kept.curve, kept.seconds

    def checkpoint(self) -> Checkpoint:
        """After an epoch. Its tensors are those in use: it is to be saved before the next step."""
        if self.best is None:
            raise RuntimeError("before the first epoch's end there is nothing to keep")
        return Checkpoint(
            digest=self.digest,
            epoch=self.epoch,
            model=dict(self.model.state_dict()),
            optimizer=self.optimizer.state_dict(),
            best=self.best,
            curve=self.curve,
            seconds=self.seconds,
        )

    def train(self, after_step: Callable[[], None]) -> float:
        """One pass over the training part, in an order of its own; the mean loss. Raises Diverged."""
        size = self.config.training.batch_size
        order = torch.randperm(len(self.train_part), generator=self.randomness.generator("order", self.epoch + 1))
        if self.batch_norm and len(order) % size == 1:
            order = order[:-1]  # there is no variance within a last batch of one example
        self.begin_pass()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for step, (inputs, targets) in enumerate(self.train_part.batches(size, order.to(self.device)), start=1):
            total.add_(self.step(inputs, targets), alpha=len(targets))
            if step % CHECK_STEPS == 0:
                self._check("train_loss", total.item())
            after_step()
        return self._check("train_loss", total.item() / len(order))

    def evaluate(self, after_batch: Callable[[], None]) -> dict[str, float]:
        """Metrics on the validation part. Raises Diverged."""
        metrics = evaluate(self.model, self.validation_part, self.info.task, after_batch)
        return {name: self._check(name, value) for name, value in metrics.items()}

    def finish_epoch(self, metrics: dict[str, float], seconds: float) -> Epoch:
        """Counts the epoch, and keeps its weights where they are those that stand for the trial so far."""
        self.epoch += 1
        self.curve += (metrics,)
        self.seconds += seconds
        value = metrics[self.config.objective.metric]
        if self.best is None or self.config.objective.value == "last" or self._better(value, self.best.value):
            weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            self.best = Best(epoch=self.epoch, value=value, model=weights)
        return Epoch(epoch=self.epoch, value=value, metrics=metrics, seconds=seconds)

    def begin_pass(self) -> None:
        """Sets the model to training, with the noise of the coming epoch."""
        noise = self.randomness.generator("dropout", self.epoch + 1, self.device)
        for module in self.model.modules():
            if isinstance(module, Dropout):
                module.generator = noise
        self.model.train()

    def step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Learns from one batch; the mean loss of its examples, still on the device."""
        loss = self.loss(self.model(inputs), targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def _better(self, value: float, other: float) -> bool:
        return value > other if self.config.objective.direction == "maximize" else value < other

    def _check(self, name: str, value: float) -> float:
        if not math.isfinite(value):
            raise Diverged(f"{name} became {value} in epoch {self.epoch + 1}")
        return value
