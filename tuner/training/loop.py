"""A trial's training: load, then step, evaluate, keep the best, checkpoint and report, epoch by epoch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor, nn

from tuner.spec.config import TrialConfig
from tuner.states import Outcome
from tuner.training import checkpoint, data
from tuner.training.checkpoint import Best, Checkpoint
from tuner.training.errors import InfeasibleModel
from tuner.training.evaluation import evaluate
from tuner.training.metrics import LOSSES
from tuner.training.models import build, materialise
from tuner.training.models.layers import Dropout
from tuner.training.optimizers import build_optimizer
from tuner.training.progress import Phase, Progress
from tuner.training.randomness import Randomness
from tuner.training.resident import Resident

CHECKPOINT_SECONDS = 2.0  # of work between two checkpoints: at most so much, or one epoch, is ever repeated
CHECK_STEPS = 100  # between two looks at whether the loss is finite; a look makes the host wait for the device


class Stop(Enum):
    GO_ON = "go on"
    AFTER_EPOCH = "after epoch"  # finish the epoch, checkpoint, return
    NOW = "now"  # return at the next step, without a checkpoint


@dataclass(frozen=True, kw_only=True)
class Member:
    """One trial to train."""

    config: TrialConfig
    seed: int  # of the study's search
    number: int


@dataclass(frozen=True, kw_only=True)
class Epoch:
    epoch: int  # from 1
    metrics: dict[str, float]  # of the validation part, and "train_loss"
    seconds: float  # it took, with its evaluation


@dataclass(frozen=True, kw_only=True)
class Result:
    outcome: Outcome | None  # None: stopped before its end
    reason: str | None
    epochs: int  # trained, in all attempts
    parameters: int


class Diverged(Exception):
    """The loss or a metric is not a finite number."""


class Stopped(Exception):
    """Stop.NOW was seen."""


def train(
    member: Member,
    data_folder: Path,
    *,
    device: torch.device,
    folder: Path,
    resume: Path | None,
    stop: Callable[[], Stop],
    report: Callable[[Epoch, Path | None], None],
    progress: Progress,
) -> Result:
    """Trains a trial on prepared data from its first epoch, or from the checkpoint `resume`, to its last.

    `stop` is asked and `progress` ticks at every step. Each epoch is reported, with the path of its checkpoint
    (below `folder`) where one was due: after CHECKPOINT_SECONDS of work, at the last epoch, at Stop.AFTER_EPOCH.
    Killed at any time and resumed, a trial ends with the same curve and weights to the bit (on a CPU with the same
    number of threads, on a GPU with `training.deterministic`).

    What is the trial's own fault is an outcome: DIVERGED, OUT_OF_MEMORY, INFEASIBLE. Raises ArtifactError for
    checkpoints that cannot be read or written, DataError for data that cannot.
    """
    epochs = member.config.training.epochs
    training: Training | None = None
    watch = _Watch(stop, progress)

    def result(outcome: Outcome | None, reason: str | None = None) -> Result:
        done, parameters = (training.epoch, training.parameters) if training else (0, 0)
        return Result(outcome=outcome, reason=reason, epochs=done, parameters=parameters)

    try:
        with _repeatable(member.config.training.deterministic and device.type == "cuda"):
            progress.enter(Phase.START)
            training = Training(member, data_folder, device)
            if resume is not None:
                training.restore(checkpoint.load(resume, training.digest))
            saved = training.seconds
            while training.epoch < epochs and not watch.draining:
                epoch = training.train_epoch(watch)
                path = None
                if training.epoch == epochs or watch.draining or training.seconds - saved >= CHECKPOINT_SECONDS:
                    progress.enter(Phase.SAVE)
                    path = folder / f"{epoch.epoch}.ckpt"
                    checkpoint.save(training.checkpoint(), path)
                    saved = training.seconds
                report(epoch, path)
        return result(Outcome.COMPLETE if training.epoch == epochs else None)
    except Stopped:
        return result(None)
    except Diverged as error:
        return result(Outcome.DIVERGED, str(error))
    except InfeasibleModel as error:
        return result(Outcome.INFEASIBLE, str(error))
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return result(Outcome.OUT_OF_MEMORY, f"out of memory on {device}: {_first_line(error)}")


class Training:
    """All that changes while a trial trains. An epoch needs nothing else, and nothing global."""

    def __init__(self, member: Member, data_folder: Path, device: torch.device) -> None:
        """Ready for the first epoch. Raises InfeasibleModel, DataError."""
        self.config = member.config
        self.device = device
        info = data.info(data_folder)
        self.task = info.task
        self.digest = checkpoint.digest(member.config, member.seed, member.number, info.digest)
        own = self.config.training.seed == "trial"
        self.randomness = Randomness(seed=member.seed, number=member.number if own else None)

        self.model = build(self.config.model, info)  # on the meta device: what cannot be, fails before any memory
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in self.model.modules())
        if self.batch_norm and min(self.config.training.batch_size, info.sizes["train"]) == 1:
            raise InfeasibleModel("batch norm needs batches of two examples or more; raise training.batch_size")
        self.model = materialise(self.model, self.randomness.generator("weights")).to(device)
        self.optimizer = build_optimizer(self.model, self.config.training, device)
        self.loss = LOSSES[info.task]
        self.train_part = Resident(data.part(data_folder, "train"), info, device)
        self.validation_part = Resident(data.part(data_folder, "validation"), info, device)

        self.epoch = 0  # epochs trained
        self.best: Best | None = None
        self.curve: tuple[dict[str, float], ...] = ()
        self.seconds = 0.0

    def restore(self, kept: Checkpoint) -> None:
        self.model.load_state_dict(kept.model)
        self.optimizer.load_state_dict(dict(kept.optimizer))
        self.epoch, self.best, self.curve, self.seconds = kept.epoch, kept.best, kept.curve, kept.seconds

    def checkpoint(self) -> Checkpoint:
        """After an epoch: its tensors are those in use, to be saved before the next."""
        if self.best is None:
            raise RuntimeError("there is nothing to keep before the first epoch's end")
        return Checkpoint(
            digest=self.digest,
            epoch=self.epoch,
            model=dict(self.model.state_dict()),
            optimizer=self.optimizer.state_dict(),
            best=self.best,
            curve=self.curve,
            seconds=self.seconds,
        )

    def train_epoch(self, watch: _Watch) -> Epoch:
        """Trains and evaluates one epoch. Raises Diverged or Stopped, after which this is of no more use."""
        began = time.monotonic()
        watch.progress.enter(Phase.TRAIN)
        metrics = {"train_loss": self._step_through(self.epoch + 1, watch)}
        watch.progress.enter(Phase.EVALUATE)
        metrics |= evaluate(self.model, self.validation_part, self.task, watch.step)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} became {value} in epoch {self.epoch + 1}")
        self.epoch += 1
        self._keep_best(metrics[self.config.objective.metric])
        seconds = time.monotonic() - began
        self.curve += (metrics,)
        self.seconds += seconds
        return Epoch(epoch=self.epoch, metrics=metrics, seconds=seconds)

    def _step_through(self, epoch: int, watch: _Watch) -> float:
        """One pass over the training part, in an order of its own; the mean loss of its examples."""
        size = self.config.training.batch_size
        order = torch.randperm(len(self.train_part), generator=self.randomness.generator("order", epoch))
        if self.batch_norm and len(order) % size == 1:
            order = order[:-1]  # there is no variance within a last batch of one example
        self.begin_epoch(epoch)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for step, (inputs, targets) in enumerate(self.train_part.batches(size, order.to(self.device)), start=1):
            total.add_(self.step(inputs, targets), alpha=len(targets))
            if step % CHECK_STEPS == 0 and not math.isfinite(total.item()):
                raise Diverged(f"train_loss became {total.item()} in epoch {epoch}")
            watch.step()
        return total.item() / len(order)

    def begin_epoch(self, epoch: int) -> None:
        noise = self.randomness.generator("dropout", epoch, self.device)
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

    def _keep_best(self, value: float) -> None:
        if self.best is None or self.config.objective.value == "last" or self._better(value, self.best.value):
            weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            self.best = Best(epoch=self.epoch, value=value, model=weights)

    def _better(self, value: float, other: float) -> bool:
        return value > other if self.config.objective.direction == "maximize" else value < other


class _Watch:
    """Both directions at every step: that the training lives, and whether it should."""

    def __init__(self, stop: Callable[[], Stop], progress: Progress) -> None:
        self.progress = progress
        self.draining = False  # Stop.AFTER_EPOCH was seen
        self._stop = stop

    def step(self) -> None:
        self.progress.tick()
        match self._stop():
            case Stop.NOW:
                raise Stopped
            case Stop.AFTER_EPOCH:
                self.draining = True


@contextmanager
def _repeatable(on: bool) -> Iterator[None]:
    """Only operations that repeat to the bit on a GPU; torch keeps this switch for the whole process."""
    if not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _out_of_memory(error: Exception) -> bool:
    """torch's allocator for the CPU raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
