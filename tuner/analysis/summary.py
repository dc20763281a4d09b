"""A comparison in figures: one line a method. Descriptions only; nothing here judges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from tuner.analysis.anytime import Direction, Run, by_method, worst
from tuner.states import TrialState

QUARTILES_FROM = 4  # seeds; of fewer, quartiles are little more than the range


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """Best values are those of complete trials; work is summed over the runs, whatever became of the trials."""

    method: str
    seeds: int  # runs with a finished trial
    best_median: float | None  # of the runs' best values; a run without any counts as infinitely bad: None
    best_min: float | None
    best_max: float | None
    best_q1: float | None  # from four seeds on
    best_q3: float | None
    trials: int  # finished
    pruned: int
    failed: int
    epochs: int
    seconds: float  # of training


def summarize(runs: Sequence[Run], direction: Direction) -> list[MethodSummary]:
    """One line a method, in the order in which the methods come first."""
    return [_summary(method, members, direction) for method, members in by_method(runs).items()]


def _summary(method: str, runs: Sequence[Run], direction: Direction) -> MethodSummary:
    begun = [run for run in runs if run.steps]
    states = [step.trial.state for run in begun for step in run.steps]
    best = [worst(direction) if run.best is None else run.best for run in begun]
    q1, q3 = _quartiles(best)
    return MethodSummary(
        method=method,
        seeds=len(begun),
        best_median=_finite(median(best)) if best else None,
        best_min=_finite(min(best)) if best else None,
        best_max=_finite(max(best)) if best else None,
        best_q1=q1,
        best_q3=q3,
        trials=len(states),
        pruned=states.count(TrialState.PRUNED),
        failed=states.count(TrialState.FAIL),
        epochs=sum(run.steps[-1].epochs for run in begun),
        seconds=sum(run.steps[-1].seconds for run in begun),
    )


def _quartiles(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    if len(values) < QUARTILES_FROM or not all(map(math.isfinite, values)):
        return None, None
    q1, _, q3 = quantiles(values, method="inclusive")  # linear between the values, as numpy's default
    return q1, q3


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
