"""The runs of a comparison, from the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuner.analysis.anytime import Direction, FinishedTrial, Run, by_method, steps
from tuner.errors import NotFound
from tuner.spec.config import Metric
from tuner.storage.comparisons import get_comparison
from tuner.storage.connection import Database
from tuner.storage.studies import get_study
from tuner.storage.trials import TrialRecord, list_trials

NAMED = 3  # missing studies that a note names


@dataclass(frozen=True, kw_only=True)
class Comparison:
    name: str
    metric: Metric  # of the validation part
    direction: Direction
    runs: tuple[Run, ...]  # by method, then by seed

    @property
    def missing(self) -> tuple[str, ...]:
        """The studies without which the methods are not compared by the same seeds: deleted, or never made."""
        there = {(run.method, run.seed) for run in self.runs}
        methods, seeds = dict.fromkeys(run.method for run in self.runs), sorted({run.seed for run in self.runs})
        return tuple(
            f"{self.name}.{method}.{seed}" for method in methods for seed in seeds if (method, seed) not in there
        )

    @property
    def unfinished(self) -> str:
        """How many studies have ended; empty where all have."""
        ended = sum(run.ended for run in self.runs)
        return "" if ended == len(self.runs) else f"unfinished: {ended} of {len(self.runs)} studies have ended"

    @property
    def note(self) -> str:
        """What must be said of a comparison that is not done or not whole; empty for one that is."""
        others = len(self.missing) - NAMED
        missing = ", ".join(self.missing[:NAMED]) + (f" and {others} others" if others > 0 else "")
        return "; ".join(filter(None, (self.unfinished, missing and f"missing: {missing}")))


def read_comparison(db: Database, name: str) -> Comparison:
    """Raises NotFound, also where all studies of the comparison were deleted."""
    record = get_comparison(db, name)
    studies = [(member, get_study(db, member.study)) for member in record.members]
    if not studies:
        raise NotFound(f"the studies of comparison {name!r} were deleted; `tuner compare` makes them again")
    objective = studies[0][1].spec.objective
    runs = [
        Run(
            study=study.name,
            method=member.method,
            seed=member.seed,
            ended=study.state.ended,
            steps=steps(_finished(list_trials(db, study)), objective.direction),
        )
        for member, study in studies
    ]
    return Comparison(
        name=name,
        metric=objective.metric,
        direction=objective.direction,
        runs=tuple(run for members in by_method(runs).values() for run in sorted(members, key=lambda run: run.seed)),
    )


def _finished(trials: Iterable[TrialRecord]) -> list[FinishedTrial]:
    """In the order in which workers told that they ended."""
    told = [(trial.finish_seq, trial) for trial in trials if trial.finish_seq is not None]
    return [
        FinishedTrial(
            number=trial.number, state=trial.state, value=trial.value, epochs=trial.epochs, seconds=trial.seconds
        )
        for _, trial in sorted(told, key=lambda one: one[0])
    ]
