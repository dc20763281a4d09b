"""Several trials of one shape trained as one network (see `tuner.spec.stacking` for which, `models.stacked` for how).

A step of many small networks costs Python and torch about as much as a step of one. What a member computes does not
depend on its companions, to the bit, so that which trials train together changes only how fast they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tuner.training import data
from tuner.training.captured import Index, steps_on
from tuner.training.checkpoint import Checkpoint
from tuner.training.course import Course, Member, Weights
from tuner.training.evaluation import batch_size
from tuner.training.metrics import GRADIENTS, METRICS, Means
from tuner.training.models import build, build_stacked, materialise
from tuner.training.models.stacked import BatchNorm, Dropout, FlattenMap, multiples
from tuner.training.resident import resident
from tuner.training.stack_batches import StackBatch, StackBatches
from tuner.training.stack_optimizers import STACK_OPTIMIZERS
from tuner.training.stack_rows import Rows, parameters_of, statistics_of
from tuner.training.state import check_batches, epoch_order
from tuner.training.turns import Turn, Turns, done


@dataclass(kw_only=True)
class _Row:
    """What of the stack's matrices is one member's."""

    course: Course
    network: nn.Module  # the ordinary one, on the meta device: its names and shapes
    weights: Tensor  # (width,)
    moments: list[Tensor]  # (width,) each: the optimizer's
    statistics: list[Tensor]  # of batch norms
    noise: torch.Generator
    steps: int = 0  # taken in all its epochs


class Stack:
    """A network of members, their optimizer and data. Members join and leave between two epochs."""

    def __init__(self, members: Sequence[Member], data_folder: Path, device: torch.device) -> None:
        """All of one shape, ready for their first epochs. Raises InfeasibleModel, DataError."""
        self.config = config = members[0].config  # but for what each member has of its own
        self.device = device
        self.info = data.info(data_folder)
        network = build_stacked(config.model, self.info, members=1)
        self._layout = Rows(network.shapes)
        self._multiples = multiples(network.layers)
        self._batch_norm = any(isinstance(layer, BatchNorm) for layer in network.layers)
        check_batches(self._batch_norm, min(config.training.batch_size, self.info.sizes["train"]))
        self._optimizer_type = STACK_OPTIMIZERS[config.training.optimizer]
        self.train_part = resident(data_folder, "train", device)
        self.validation_part = resident(data_folder, "validation", device)
        self._rows: list[_Row] = []
        for member in members:
            self.add(member)

    @property
    def courses(self) -> list[Course]:
        return [row.course for row in self._rows]

    # --- members -----------------------------------------------------------------------------------------------------

    def add(self, member: Member) -> Course:
        course = Course(member, self.info.digest)
        network = build(member.config.model, self.info)
        initial = materialise(build(member.config.model, self.info), course.randomness.generator("weights"))
        moments = [torch.zeros(self._layout.width) for _ in range(self._optimizer_type.MOMENTS)]
        self._rows.append(self._row(course, network, initial.state_dict(), moments, steps=0))
        self._assembled = False
        return course

    def remove(self, course: Course) -> None:
        self._rows = [row for row in self._rows if row.course is not course]
        self._assembled = False

    def restore(self, course: Course, kept: Checkpoint) -> None:
        index = self.courses.index(course)
        course.restore(kept)
        network, optimizer = self._rows[index].network, kept.optimizer
        self._rows[index] = self._row(course, network, kept.model, optimizer["moments"], steps=optimizer["steps"])
        self._assembled = False

    def checkpoint(self, course: Course) -> Checkpoint:
        row = self._rows[self.courses.index(course)]
        moments = [moment.clone() for moment in row.moments]  # of a view, the whole matrix would be saved
        return course.checkpoint(self.weights(course), {"moments": moments, "steps": row.steps})

    def weights(self, course: Course) -> Weights:
        """A copy, as the ordinary network names them."""
        row = self._rows[self.courses.index(course)]
        names = [name for name, _ in row.network.named_parameters()]
        state = dict(zip(names, self._layout.unpack(row.weights.clone()), strict=True))
        statistics = iter(row.statistics)
        for name, _ in row.network.named_buffers():
            counts = name.endswith("num_batches_tracked")
            state[name] = torch.tensor(row.steps) if counts else next(statistics).clone()
        return {name: state[name] for name in row.network.state_dict()}

    def _row(
        self, course: Course, network: nn.Module, state: Weights, moments: Sequence[Tensor], *, steps: int
    ) -> _Row:
        return _Row(
            course=course,
            network=network,
            weights=self._layout.pack(parameters_of(network, state)).to(self.device),
            moments=[moment.to(self.device) for moment in moments],
            statistics=[value.to(self.device) for value in statistics_of(state)],
            noise=torch.Generator(self.device),
            steps=steps,
        )

    def _assemble(self) -> None:
        """Makes the network of those who are members now, filled up with silent copies of the first."""
        count = max(2, -(-len(self._rows) // self._multiples.members) * self._multiples.members)
        rows = self._rows + [self._rows[0]] * (count - len(self._rows))
        self._filled = rows
        self._network = build_stacked(self.config.model, self.info, count)
        self._weights = torch.stack([row.weights for row in rows])
        self._gradients = torch.zeros_like(self._weights)
        self._network.bind(self._layout.views(self._weights), self._layout.views(self._gradients))
        moments = [torch.stack(each) for each in zip(*(row.moments for row in rows), strict=True)]
        self._optimizer = self._optimizer_type([row.course.config.training for row in rows], moments)
        statistics = [torch.stack(each) for each in zip(*(row.statistics for row in rows), strict=True)]
        norms = [layer for layer in self._network.layers if isinstance(layer, BatchNorm)]
        for norm, mean, variance in zip(norms, statistics[::2], statistics[1::2], strict=True):
            norm.mean, norm.variance = mean, variance
        for layer in self._network.layers:
            if isinstance(layer, FlattenMap):
                layer.multiple = self._multiples.rows
            if isinstance(layer, Dropout):
                layer.set([row.course.config.model.dropout for row in self._rows], self.generators, members=count)
        for index, row in enumerate(self._rows):  # from now on, views
            row.weights = self._weights[index]
            row.moments = [moment[index] for moment in moments]
            row.statistics = [statistic[index] for statistic in statistics]
        self._shares_of: dict[int, Tensor] = {}
        self._totals = torch.zeros(count, dtype=torch.float64, device=self.device)  # of the losses of a pass
        self._batches = StackBatches(count, maps=self.config.model.family == "cnn", multiple=self._multiples.rows)
        self.steps = steps_on(self.device)
        self._assembled = True

    # --- passes ------------------------------------------------------------------------------------------------------

    def train(self) -> Turns[list[float]]:
        """One pass over the training part, each member in an order of its own; a step at a time. The mean losses."""
        size = self.config.training.batch_size
        self.begin_pass(-(-len(self.train_part) // size))
        orders = self._orders()
        yield from self.steps.one_pass(self, orders, size)
        examples = orders.shape[1]
        for row in self._rows:
            row.steps += -(-examples // size)
        yield from done(self.device)
        return self._totals.div(examples).tolist()[: len(self._rows)]

    def evaluate(self) -> Turns[list[dict[str, float]]]:
        """Metrics of each member on the validation part, a batch at a time."""
        self._network.train(False)
        means = Means(len(self._filled), self.device)
        for batch in self._batches.shared(self.validation_part, batch_size(self.device)):
            with torch.inference_mode():  # not around the loop: whoever takes the steps may do others between them
                outputs = self._network.forward(batch.inputs)
                metrics = METRICS[self.info.task](outputs.flatten(0, 1), batch.targets.flatten(0, 1))
                by_member = {name: values.view(len(self._filled), -1) for name, values in metrics.items()}
                means.add({name: values[:, : batch.count].sum(1) for name, values in by_member.items()}, batch.count)
            yield Turn.STEPPED
        yield from done(self.device)
        return means.read()[: len(self._rows)]

    def sample(self) -> list[Tensor]:
        """What a few steps and evaluations, whole batches and last ones, come to: float32, all of a member as one."""
        size = self.config.training.batch_size
        self.begin_pass(steps=3)
        orders = self._orders()
        whole = orders.shape[1] // size * size
        few = torch.cat([orders[:, : min(2 * size, whole)], orders[:, whole:]], 1)
        results = [
            self.step(batch, index)[:, : batch.count]
            for index, batch in enumerate(self._batches.shuffled(self.train_part, few, size))
        ]
        results.append(self._weights)
        self._network.train(False)
        ends: list[StackBatch] = []
        for batch in self._batches.shared(self.validation_part, batch_size(self.device)):
            ends = [*ends[:1], batch]
        with torch.inference_mode():
            results += [self._network.forward(batch.inputs)[:, : batch.count] for batch in ends]
        return [torch.cat([result[index].flatten() for result in results]) for index in range(len(self._rows))]

    def _orders(self) -> Tensor:
        """Of the coming epoch, (members, n)."""
        size = self.config.training.batch_size
        orders = [epoch_order(row.course, len(self.train_part), size, self._batch_norm) for row in self._filled]
        return torch.stack(orders)

    def begin_pass(self, steps: int) -> None:
        """Sets the network to training, with the noise of each member's coming epoch, for so many steps."""
        if not self._assembled:
            self._assemble()
        for row in self._rows:
            row.noise.manual_seed(row.course.randomness.seed_of("dropout", row.course.epoch + 1))
        self._network.train(True)
        self._totals.zero_()
        self._optimizer.begin([row.steps for row in self._filled], steps)

    @property
    def generators(self) -> list[torch.Generator]:
        return [row.noise for row in self._rows]

    def batches(self, orders: Tensor, size: int) -> Iterator[StackBatch]:
        return self._batches.shuffled(self.train_part, orders, size)

    def gather(self, chosen: Tensor) -> StackBatch:
        return self._batches.gather(self.train_part, chosen)

    @torch.inference_mode()
    def learn(self, batch: StackBatch, index: Index) -> None:
        losses = self.step(batch, index)
        self._totals.add_(losses[:, : batch.count].sum(1))

    @torch.inference_mode()
    def step(self, batch: StackBatch, index: Index) -> Tensor:
        """Learns from one batch, the `index`th of a pass; the losses of its examples (members, rows)."""
        outputs = self._network.forward(batch.inputs)
        losses, gradient = GRADIENTS[self.info.task](outputs, batch.targets, self._shares(batch))
        self._network.backward(gradient)
        self._optimizer.step(self._weights, self._gradients, index)
        return losses

    def check(self) -> None:
        """A member that diverges is no reason to stop the others: it ends with its epoch."""

    def _shares(self, batch: StackBatch) -> Tensor:
        """What each example counts in its member's mean: rows beyond the batch's count nothing."""
        if batch.count not in self._shares_of:
            shares = torch.zeros(batch.targets.shape[:2], device=self.device)
            shares[:, : batch.count] = 1.0 / batch.count
            self._shares_of[batch.count] = shares
        return self._shares_of[batch.count]
