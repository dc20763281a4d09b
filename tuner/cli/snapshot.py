"""A study at one moment, as the commands that show studies look at it.

Imported by commands when they run, never at the start of `tuner`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tuner.errors import DatabaseLost
from tuner.spec.config import Metric
from tuner.spec.search import BudgetConfig
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage.connection import Database
from tuner.storage.studies import get_study, spent
from tuner.storage.trials import TrialRecord, list_trials
from tuner.storage.workers import serving

REFRESH_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    name: str
    state: StudyState
    reason: str | None  # why it was paused, where no person did it
    goes_on: bool  # the budget leaves another trial to end or to begin
    metric: Metric
    maximize: bool
    epochs: int  # that a trial may train
    budget: BudgetConfig
    knobs: tuple[str, ...]  # that are searched, as the study file has them
    open: tuple[TrialRecord, ...]  # running, or given back and waiting; by number
    finished: tuple[TrialRecord, ...]  # in the order in which they ended
    elapsed: float  # seconds since the study was made
    trouble: str | None = None  # why this is not the newest state
    awaited: str = "waiting for a worker"  # what must happen before the first trial begins

    @property
    def running(self) -> tuple[TrialRecord, ...]:
        return tuple(trial for trial in self.open if trial.state is TrialState.RUNNING)

    @property
    def best(self) -> TrialRecord | None:
        """The best complete trial; of equal ones the lowest number."""
        complete = [trial for trial in self.finished if trial.state is TrialState.COMPLETE]
        return min(complete, key=self._merit, default=None)

    @property
    def counts(self) -> dict[TrialState, int]:
        counted = Counter(trial.state for trial in self.finished)
        return {state: counted[state] for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)}

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """How many trials ended in each way; ways that none took are left out."""
        counted = Counter(trial.outcome for trial in self.finished)
        return {outcome: counted[outcome] for outcome in Outcome if counted[outcome]}

    @property
    def trials(self) -> int:
        """Trials that were begun, whatever became of them: what the budget counts."""
        return max((trial.number + 1 for trial in (*self.open, *self.finished)), default=0)

    @property
    def trained_epochs(self) -> int:
        return sum(trial.epochs for trial in (*self.open, *self.finished))

    @property
    def trained_seconds(self) -> float:
        """Training time, summed over all slots."""
        return sum((trial.seconds for trial in (*self.open, *self.finished)), start=0.0)

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, from 0 to 1: of the limit that is nearest."""
        spent = (
            (len(self.finished), self.budget.trials),
            (self.trained_epochs, self.budget.total_epochs),
            (self.trained_seconds, self.budget.seconds),
        )
        return min(1.0, max((amount / limit for amount, limit in spent if limit), default=0.0))

    @property
    def remaining_seconds(self) -> float | None:
        """A guess at the time to go, as fast as now; None while nothing runs or nothing has ended."""
        slots = sum(1 / trial.shared for trial in self.running)
        epochs = sum(trial.epochs for trial in self.finished)
        if not slots or not epochs:
            return None
        epochs_a_trial = epochs / len(self.finished)  # pruned ones included
        epochs_to_go = sum(max(epochs_a_trial - trial.epochs, 1.0) for trial in self.open)
        seconds_an_epoch = sum(trial.seconds for trial in self.finished) / epochs
        limits = []
        trials = self.trials if self.state is StudyState.STOPPING else self.budget.trials
        if trials is not None:
            unstarted = max(0, trials - self.trials)
            limits.append((epochs_to_go + unstarted * epochs_a_trial) * seconds_an_epoch)
        if self.budget.total_epochs is not None:
            limits.append((self.budget.total_epochs - self.trained_epochs) * seconds_an_epoch)
        if self.budget.seconds is not None:
            limits.append(self.budget.seconds - self.trained_seconds)
        return max(0.0, min(limits)) / slots if limits else None

    def _merit(self, trial: TrialRecord) -> tuple[float, int]:
        value = math.inf if trial.value is None else -trial.value if self.maximize else trial.value
        return (value, trial.number)


class SnapshotReader:
    """Looks at one study again and again; a look costs what is new since the last one."""

    def __init__(self, db: Database, name: str) -> None:
        self._db = db
        self._name = name
        self._finished: list[TrialRecord] = []
        spec = get_study(db, name).spec
        self._objective = spec.objective
        self._knobs = tuple(parameter.name for parameter in spec.space.parameters)

    def look(self) -> Snapshot:
        """Three statements. Raises NotFound, DatabaseLost."""
        study = get_study(self._db, self._name)
        seen = max((trial.finish_seq or 0 for trial in self._finished), default=0)
        trials = list_trials(self._db, study, finished_after=seen)
        ended = [trial for trial in trials if trial.state.finished]
        again = {trial.number for trial in trials}  # some had failed before, and are run again
        self._finished = [trial for trial in self._finished if trial.number not in again]
        self._finished += sorted(ended, key=lambda trial: trial.finish_seq or 0)
        return Snapshot(
            name=study.name,
            state=study.state,
            reason=study.reason,
            goes_on=spent(self._db, study.study_id).goes_on,
            metric=self._objective.metric,
            maximize=self._objective.direction == "maximize",
            epochs=study.epochs,
            budget=study.budget,
            knobs=self._knobs,
            open=tuple(trial for trial in trials if not trial.state.finished),
            finished=tuple(self._finished),
            elapsed=max(0.0, ((study.ended_at or datetime.now(UTC)) - study.created_at).total_seconds()),
        )

    def follow(self) -> Iterator[Snapshot]:
        """Looks twice a second until the study has ended; while the database is away, gives the last look again."""
        seen = self.look()
        yield seen
        while not seen.state.ended:
            time.sleep(REFRESH_SECONDS)
            try:
                seen = self.look()
            except DatabaseLost as error:
                seen = replace(seen, trouble=str(error))
            yield seen


def serving_workers(db: Database, name: str) -> int:
    """How many live workers serve a study, whether they train or wait."""
    return serving(db, get_study(db, name).study_id)
