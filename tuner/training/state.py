"""A trial between two epochs: all that changes while it trains, and the two passes that make an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from tuner.training import data
from tuner.training.batches import load_part
from tuner.training.captured import Eager, Index, steps_on
from tuner.training.checkpoint import Checkpoint
from tuner.training.course import Course, Member, Weights
from tuner.training.errors import InfeasibleModel
from tuner.training.evaluation import evaluation
from tuner.training.metrics import LOSSES
from tuner.training.models import build, materialise
from tuner.training.models.layers import Dropout
from tuner.training.optimizers import build_optimizer
from tuner.training.precision import Bfloat16Weights
from tuner.training.resident import Resident
from tuner.training.turns import Turns, done

Batch = tuple[Tensor, Tensor]  # inputs and targets


class State:
    """Model, optimizer, data and what came of them so far. Nothing outside of it is read or changed."""

    def __init__(self, member: Member, data_folder: Path, device: torch.device) -> None:
        """Ready for the first epoch. Raises InfeasibleModel, DataError."""
        self.config = member.config
        self.device = device
        self.info = data.info(data_folder)
        self.course = Course(member, self.info.digest)

        model = build(self.config.model, self.info)
        self.batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        check_batches(self.batch_norm, min(self.config.training.batch_size, self.info.sizes["train"]))
        self.model = materialise(model, self.course.randomness.generator("weights")).to(device)
        self.optimizer = build_optimizer(self.model, self.config.training, device)
        self.bfloat16 = Bfloat16Weights(self.model) if self.config.training.precision == "bfloat16" else None
        self.computing = self.bfloat16.computing if self.bfloat16 else self.model
        self.loss = LOSSES[self.info.task]
        self.train_part = load_part(data_folder, "train", device)
        self.validation_part = load_part(data_folder, "validation", device)
        self.total = torch.zeros((), dtype=torch.float64, device=device)  # of the losses of a pass
        self.generators = [torch.Generator(device)]
        for module in self.computing.modules():
            if isinstance(module, Dropout):
                (module.generator,) = self.generators
        self.steps = steps_on(device) if self.train_part.resident else Eager()

    @property
    def courses(self) -> list[Course]:
        return [self.course]

    def restore(self, course: Course, kept: Checkpoint) -> None:
        course.restore(kept)
        self.model.load_state_dict(kept.model)
        ours = self.optimizer.state_dict()  # its groups say how it works on this kind of device
        self.optimizer.load_state_dict({**ours, "state": kept.optimizer["state"]})
        if self.bfloat16:
            self.bfloat16.refresh()

    def checkpoint(self, course: Course) -> Checkpoint:
        return course.checkpoint(self.model.state_dict(), self.optimizer.state_dict())

    def weights(self, course: Course) -> Weights:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def train(self) -> Turns[list[float]]:
        """One pass over the training part, in an order of its own; a step at a time. The mean loss.

        Raises Diverged.
        """
        size = self.config.training.batch_size
        order = epoch_order(self.course, len(self.train_part), size, self.batch_norm)
        self.begin_pass()
        yield from self.steps.one_pass(self, order, size)
        yield from done(self.device)
        return [self.total.item() / len(order)]

    def evaluate(self) -> Turns[list[dict[str, float]]]:
        """Metrics on the validation part, a batch at a time; in float32, in which the weights are kept and exported."""
        return (yield from evaluation(self.model, self.validation_part, self.info.task))

    def begin_pass(self) -> None:
        """Sets the model to training, with the noise of the coming epoch."""
        (noise,) = self.generators
        noise.manual_seed(self.course.randomness.seed_of("dropout", self.course.epoch + 1))
        self.computing.train()
        self.total.zero_()

    def batches(self, orders: Tensor, size: int) -> Iterator[Batch]:
        return self.train_part.batches(size, orders.to(self.device))

    def gather(self, chosen: Tensor) -> Batch:
        assert isinstance(self.train_part, Resident)
        return self.train_part.gather(chosen)

    def learn(self, batch: Batch, index: Index) -> None:
        inputs, targets = batch
        loss = self.loss(self.computing(inputs), targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self.bfloat16:
            self.bfloat16.collect_gradients()
        self.optimizer.step()
        if self.bfloat16:
            self.bfloat16.refresh()
        self.total.add_(loss.detach(), alpha=len(targets))

    def check(self) -> None:
        self.course.check("train_loss", self.total.item())


def check_batches(batch_norm: bool, size: int) -> None:
    """Raises InfeasibleModel where a batch norm would have batches of one example."""
    if batch_norm and size == 1:
        raise InfeasibleModel("batch norm needs batches of two examples or more; raise training.batch_size")


def epoch_order(course: Course, count: int, size: int, batch_norm: bool) -> Tensor:
    """The order of a trial's examples in its coming epoch: their positions, on the CPU."""
    order = torch.randperm(count, generator=course.randomness.generator("order", course.epoch + 1))
    # There is no variance within a last batch of one example.
    return order[:-1] if batch_norm and count % size == 1 else order
