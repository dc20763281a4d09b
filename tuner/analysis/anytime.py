"""Anytime curves: the best value that a search had found after so much work.

A run is one study: one method with one seed. Work is counted in epochs trained or in trials finished, in the order in
which the trials finished, and it counts whatever became of the trial. Only a complete trial's value counts as found:
a pruned one was never trained to its end. The epochs of a trial count once it has finished, so that a run with several
trials at a time looks a little later than it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.states import TrialState

Direction = Literal["maximize", "minimize"]
Axis = Literal["epochs", "trials"]


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    number: int
    state: TrialState
    value: float | None
    epochs: int
    seconds: float  # of training


@dataclass(frozen=True, kw_only=True)
class Step:
    """A run after one more of its trials finished."""

    trial: FinishedTrial
    trials: int  # finished so far, this one included
    best: float | None  # value of the complete trials so far; None: there is none
    epochs: int  # trained so far
    seconds: float  # of training so far


@dataclass(frozen=True, kw_only=True)
class Run:
    study: str
    method: str
    seed: int
    ended: bool  # its budget is spent, or it was ended
    steps: tuple[Step, ...]

    @property
    def best(self) -> float | None:
        return self.steps[-1].best if self.steps else None


@dataclass(frozen=True, kw_only=True)
class Band:
    """Best values of several runs at the places of a grid; infinitely bad where there is none yet."""

    at: NDArray[np.float64]
    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def steps(trials: Iterable[FinishedTrial], direction: Direction) -> tuple[Step, ...]:
    """The steps of a run, from its trials in the order in which they finished.

    >>> one = FinishedTrial(number=0, state=TrialState.COMPLETE, value=0.8, epochs=5, seconds=1.0)
    >>> two = FinishedTrial(number=1, state=TrialState.PRUNED, value=0.9, epochs=2, seconds=0.5)
    >>> [(step.best, step.epochs) for step in steps([one, two], "maximize")]
    [(0.8, 5), (0.8, 7)]
    """
    choose = max if direction == "maximize" else min
    found: list[Step] = []
    best: float | None = None
    epochs, seconds = 0, 0.0
    for place, trial in enumerate(trials, start=1):
        epochs += trial.epochs
        seconds += trial.seconds
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            best = trial.value if best is None else choose(best, trial.value)
        found.append(Step(trial=trial, trials=place, best=best, epochs=epochs, seconds=seconds))
    return tuple(found)


def grid(runs: Iterable[Run], axis: Axis) -> NDArray[np.float64]:
    """Every place of the axis where a trial of any run finished: between them no curve changes."""
    return np.unique([place for run in runs for place in _places(run, axis)])


def curve(run: Run, axis: Axis, places: NDArray[np.float64], direction: Direction) -> NDArray[np.float64]:
    """The run's best value at each place: infinitely bad before its first complete trial, its last after its end."""
    none_yet = worst(direction)
    values = np.array([none_yet] + [none_yet if step.best is None else step.best for step in run.steps])
    return values[np.searchsorted(_places(run, axis), places, side="right")]


def band_of(runs: Sequence[Run], axis: Axis, places: NDArray[np.float64], direction: Direction) -> Band:
    """Median and range over a method's runs, to the end of its longest run.

    A run that ended before that keeps what it had found: it spent its budget, and its best stays its best.
    """
    own = places[places <= max((_places(run, axis)[-1] for run in runs if run.steps), default=0)]
    values = np.array([curve(run, axis, own, direction) for run in runs])
    return Band(at=own, median=np.median(values, axis=0), low=values.min(axis=0), high=values.max(axis=0))


def worst(direction: Direction) -> float:
    return -np.inf if direction == "maximize" else np.inf


def by_method(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each method, methods in the order in which they come first."""
    methods: dict[str, list[Run]] = {}
    for run in runs:
        methods.setdefault(run.method, []).append(run)
    return methods


def _places(run: Run, axis: Axis) -> list[int]:
    return [step.epochs if axis == "epochs" else step.trials for step in run.steps]
