"""Training trials: start or resume, then step, evaluate, keep the best, checkpoint and report, epoch by epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from tuner.errors import ArtifactError
from tuner.spec.stacking import shape_of
from tuner.states import Outcome
from tuner.training import checkpoint, data
from tuner.training.agreement import agree
from tuner.training.checkpoint import Checkpoint
from tuner.training.course import Course, Diverged, Member, Weights
from tuner.training.errors import InfeasibleModel, is_out_of_memory
from tuner.training.models import parameter_count
from tuner.training.progress import Phase, Progress, Result, Run, Stop
from tuner.training.stack import Stack
from tuner.training.state import State
from tuner.training.turns import Answer, Turn, Turns

log = logging.getLogger("tuner.training")

CHECKPOINT_SECONDS = 2.0  # of work: at most so much, or one epoch if it is longer, is ever repeated

Joining = Callable[[], Sequence[Run]]  # runs that have arrived meanwhile; it does not wait for them


class Network(Protocol):
    """What trains: one trial's network, or a stack of several."""

    @property
    def courses(self) -> list[Course]: ...

    def train(self) -> Turns[list[float]]: ...

    def evaluate(self) -> Turns[list[dict[str, float]]]: ...

    def weights(self, course: Course) -> Weights: ...

    def checkpoint(self, course: Course) -> Checkpoint: ...

    def restore(self, course: Course, kept: Checkpoint) -> None: ...


def train(
    runs: Sequence[Run], data_folder: Path, *, device: torch.device, joining: Joining, progress: Progress
) -> None:
    """Trains runs of one study on prepared data, and those that `joining` gives meanwhile, until all have ended.

    It is one lane on a CPU: those of one shape train together as a stack; others wait for their turn.

    A run is asked whether to stop, and `progress` ticks, at every step. Each epoch is reported, with the path of its
    checkpoint (below the run's folder) where one was due: so often that no CHECKPOINT_SECONDS of work are without one,
    at the last epoch and at Stop.AFTER_EPOCH. Killed at any time and resumed, a trial ends with the same curve and
    weights to the bit: on a CPU with the same number of threads, on a GPU with `training.deterministic`.

    What is a trial's own fault is an outcome: DIVERGED, OUT_OF_MEMORY, INFEASIBLE. Raises ArtifactError for
    checkpoints that cannot be read or written, DataError for data that cannot be read.
    """
    for _ in Lane(data_folder, device, joining, progress).turns(runs):
        pass


@dataclass(kw_only=True, eq=False)
class _Trial:
    """A run while it trains."""

    run: Run
    course: Course = field(init=False)  # from when there is a network
    epochs: int = 0  # trained, in all attempts
    saved_at: float = field(default_factory=time.monotonic)  # its last checkpoint, or its start
    ended: bool = False


class Lane:
    """Trains one network after the other. Several lanes can take turns in one process (see `lanes`)."""

    def __init__(self, data_folder: Path, device: torch.device, joining: Joining, progress: Progress) -> None:
        self._data_folder = data_folder
        self._device = device
        self._joining = joining
        self._progress = progress
        self._waiting: list[Run] = []
        self._trials: list[_Trial] = []  # of the network that trains now, in the order of its courses
        self._parameters = 0

    def turns(self, runs: Sequence[Run]) -> Turns[None]:
        """Trains the runs, and those that join, until all have ended; gives way after each step."""
        self._waiting += runs
        while self._waiting:
            yield from self._train(self._waiting.pop(0))
            self._waiting += self._joining()

    def _train(self, first: Run) -> Turns[None]:
        """Trains a run with all that can train beside it, and those that join them."""
        self._progress.enter(Phase.START)
        self._trials = [_Trial(run=first)]
        self._parameters = 0
        try:
            self._trials += [_Trial(run=run) for run in self._beside([first])]
            self._parameters = parameter_count(first.config.model, data.info(self._data_folder))
            network = self._network()
            while self._exchange(network):
                yield from self._train_epoch(network)
        except _Stopped:
            self._end_all(None)
        except Diverged as error:
            self._end_all(Outcome.DIVERGED, str(error))
        except InfeasibleModel as error:
            self._end_all(Outcome.INFEASIBLE, str(error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            what = str(error).partition("\n")[0] or type(error).__name__
            self._end_all(Outcome.OUT_OF_MEMORY, f"out of memory on {self._device}: {what}")

    def _network(self) -> Network:
        """Of the trials, each from its checkpoint if it has one."""
        members = [_member(trial.run) for trial in self._trials]
        network: Network
        if shape_of(members[0].config) is None:
            network = State(members[0], self._data_folder, self._device)
        else:
            network = Stack(members, self._data_folder, self._device)
        for trial, course in zip(self._trials, network.courses, strict=True):
            trial.course = course
            self._resume(network, trial)
        return network

    def _exchange(self, network: Network) -> bool:
        """Before an epoch: others join a stack, and those that have ended leave it; whether any trial is left."""
        if isinstance(network, Stack):
            self._waiting += self._joining()
            for run in self._beside([trial.run for trial in self._trials]):
                trial = _Trial(run=run)
                self._trials.append(trial)
                trial.course = network.add(_member(run))
                self._resume(network, trial)
            for trial in self._trials:
                if trial.ended:
                    network.remove(trial.course)
        self._trials = [trial for trial in self._trials if not trial.ended]
        return bool(self._trials)

    def _resume(self, network: Network, trial: _Trial) -> None:
        """From the trial's checkpoint, if it has one; it may have been the last.

        A checkpoint that cannot be read costs the epochs behind it, not the trial: they repeat to the bit. Raises
        ArtifactError for one of another trial, or of this one on other data.
        """
        path = trial.run.resume
        if path is None:
            return
        try:
            kept = checkpoint.load(path)
        except ArtifactError as error:
            log.warning("%s; training begins anew", error)
            return
        if kept.digest != trial.course.digest:
            raise ArtifactError(f"the checkpoint {path} is of another configuration, seed or data set")
        network.restore(trial.course, kept)
        trial.epochs = kept.epoch
        if trial.epochs == trial.run.config.training.epochs:
            self._end(trial, Outcome.COMPLETE)

    def _train_epoch(self, network: Network) -> Turns[None]:
        began = time.monotonic()
        self._progress.enter(Phase.TRAIN)
        losses = yield from self._watched(network.train())
        self._progress.enter(Phase.EVALUATE)
        metrics = yield from self._watched(network.evaluate())
        seconds = time.monotonic() - began
        for trial, loss, measured in zip(self._trials, losses, metrics, strict=True):
            self._finish_epoch(network, trial, {"train_loss": loss, **measured}, seconds)

    def _finish_epoch(self, network: Network, trial: _Trial, metrics: dict[str, float], seconds: float) -> None:
        """Reports an epoch that took so long, with a checkpoint where one is due; ends the trial if it is over."""
        course = trial.course
        try:
            epoch = course.finish_epoch(metrics, seconds / len(self._trials), lambda: network.weights(course))
        except Diverged as error:
            self._end(trial, Outcome.DIVERGED, str(error))
            return
        stop = trial.run.stop()
        if stop is Stop.NOW:  # while its companions went on: nobody waits for what became of it
            self._end(trial, None)
            return
        trial.epochs = epoch.epoch
        last = epoch.epoch == course.config.training.epochs
        path = None
        due = time.monotonic() - trial.saved_at + seconds >= CHECKPOINT_SECONDS  # by the end of another such epoch
        if last or due or stop is Stop.AFTER_EPOCH:
            self._progress.enter(Phase.SAVE)
            path = trial.run.folder / f"{epoch.epoch}.ckpt"
            checkpoint.save(network.checkpoint(course), path)
            trial.saved_at = time.monotonic()
        trial.run.report(epoch, path)
        if last or stop is not Stop.GO_ON:
            self._end(trial, Outcome.COMPLETE if last else None)

    def _watched(self, turns: Turns[Answer]) -> Turns[Answer]:
        """Looks both ways at every turn: says that the training lives, and asks whether any trial should go on."""
        with closing(turns):
            while True:
                try:
                    turn = next(turns)
                except StopIteration as end:
                    answer: Answer = end.value
                    return answer
                if turn is Turn.STEPPED:
                    self._progress.tick()
                if all(trial.run.stop() is Stop.NOW for trial in self._trials):
                    raise _Stopped
                yield turn

    def _beside(self, runs: Sequence[Run]) -> list[Run]:
        """Takes out of those that wait the ones that can train in one network with these."""
        shape = shape_of(runs[0].config)
        others = [run for run in self._waiting if shape is not None and shape_of(run.config) == shape]
        if not others or not agree([_member(run) for run in (*runs, *others)], self._data_folder, self._device):
            return []
        self._waiting = [run for run in self._waiting if run not in others]
        return others

    def _end(self, trial: _Trial, outcome: Outcome | None, reason: str | None = None) -> None:
        trial.ended = True
        trial.run.end(Result(outcome=outcome, reason=reason, epochs=trial.epochs, parameters=self._parameters))

    def _end_all(self, outcome: Outcome | None, reason: str | None = None) -> None:
        for trial in self._trials:
            if not trial.ended:
                self._end(trial, outcome, reason)


class _Stopped(Exception):
    """Stop.NOW was seen."""


def _member(run: Run) -> Member:
    return Member(config=run.config, seed=run.seed, number=run.number)
