"""A trial's training: start or resume, then step, evaluate, keep the best, checkpoint and report, epoch by epoch."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tuner.errors import ArtifactError
from tuner.states import Outcome
from tuner.training import checkpoint, data
from tuner.training.errors import InfeasibleModel, is_out_of_memory
from tuner.training.models import parameter_count
from tuner.training.progress import Epoch, Phase, Progress, Result, Stop
from tuner.training.state import Diverged, Member, State

__all__ = ["CHECKPOINT_SECONDS", "Epoch", "Member", "Result", "Stop", "train"]

log = logging.getLogger("tuner.training")

CHECKPOINT_SECONDS = 2.0  # of work: at most so much, or one epoch if it is longer, is ever repeated


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
    (below `folder`) where one was due: so often that no CHECKPOINT_SECONDS of work are without one, at the last epoch
    and at Stop.AFTER_EPOCH. Killed at any time and resumed, a trial ends with the same curve and weights to the bit:
    on a CPU with the same number of threads, on a GPU with `training.deterministic`.

    What is the trial's own fault is an outcome: DIVERGED, OUT_OF_MEMORY, INFEASIBLE. Raises ArtifactError for
    checkpoints that cannot be read or written, DataError for data that cannot be read.
    """
    training = member.config.training
    watch = _Watch(stop, progress)
    state: State | None = None
    parameters = 0

    def result(outcome: Outcome | None, reason: str | None = None) -> Result:
        return Result(outcome=outcome, reason=reason, epochs=state.epoch if state else 0, parameters=parameters)

    try:
        with _repeatable(training.deterministic and device.type == "cuda"):
            progress.enter(Phase.START)
            parameters = parameter_count(member.config.model, data.info(data_folder))
            state = State(member, data_folder, device)
            if resume is not None:
                _restore(state, resume)
            saved = state.seconds
            while state.epoch < training.epochs and not watch.draining:
                began = time.monotonic()
                progress.enter(Phase.TRAIN)
                train_loss = state.train(watch.step)
                progress.enter(Phase.EVALUATE)
                metrics = {**state.evaluate(watch.step), "train_loss": train_loss}
                epoch = state.finish_epoch(metrics, time.monotonic() - began)

                path = None
                last = state.epoch == training.epochs
                due = state.seconds - saved + epoch.seconds >= CHECKPOINT_SECONDS  # by the end of another such epoch
                if last or watch.draining or due:
                    progress.enter(Phase.SAVE)
                    path = folder / f"{state.epoch}.ckpt"
                    checkpoint.save(state.checkpoint(), path)
                    saved = state.seconds
                report(epoch, path)
        return result(Outcome.COMPLETE if state.epoch == training.epochs else None)
    except _Stopped:
        return result(None)
    except Diverged as error:
        return result(Outcome.DIVERGED, str(error))
    except InfeasibleModel as error:
        return result(Outcome.INFEASIBLE, str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        what = str(error).partition("\n")[0] or type(error).__name__
        return result(Outcome.OUT_OF_MEMORY, f"out of memory on {device}: {what}")


class _Stopped(Exception):
    """Stop.NOW was seen."""


class _Watch:
    """Looks both ways at every step: says that the training lives, and asks whether it should."""

    def __init__(self, stop: Callable[[], Stop], progress: Progress) -> None:
        self.draining = False  # Stop.AFTER_EPOCH was seen
        self._stop = stop
        self._progress = progress

    def step(self) -> None:
        self._progress.tick()
        match self._stop():
            case Stop.NOW:
                raise _Stopped
            case Stop.AFTER_EPOCH:
                self.draining = True


def _restore(state: State, path: Path) -> None:
    """A checkpoint that cannot be read costs the epochs behind it, not the trial: they repeat to the bit.

    Raises ArtifactError for one of another trial, or of this one on other data.
    """
    try:
        kept = checkpoint.load(path)
    except ArtifactError as error:
        log.warning("%s; training begins anew", error)
        return
    if kept.digest != state.digest:
        raise ArtifactError(f"the checkpoint {path} is of another configuration, seed or data set")
    state.restore(kept)


@contextmanager
def _repeatable(on: bool) -> Iterator[None]:
    """Only operations that repeat to the bit on a GPU; torch keeps this switch for the whole process."""
    if not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at a process's first matrix product
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
