"""A study at one moment, as the commands that show studies look at it.

Imported by commands when they run, never at the start of `tuner`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tuner.cli.output import duration
from tuner.errors import DatabaseLost
from tuner.spec.config import Metric
from tuner.spec.search import BudgetConfig
from tuner.spec.stacking import Engine
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage.connection import Database
from tuner.storage.studies import get_study, spent
from tuner.storage.trials import TrialRecord, list_trials
from tuner.storage.workers import WorkerRecord, WorkerState, list_workers

REFRESH_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    name: str
    state: StudyState
    reason: str | None  # why it was paused, where no person did it
    affordable: bool  # the budget leaves another trial to begin
    metric: Metric
    maximize: bool
    epochs: int  # that a trial may train
    budget: BudgetConfig
    knobs: tuple[str, ...]  # that are searched, as the study file has them
    open: tuple[TrialRecord, ...]  # running, or given back and waiting; by number. Not those that were only skipped
    finished: tuple[TrialRecord, ...]  # in the order in which they ended
    elapsed: float  # seconds since the study was made
    looked_at: datetime
    reported: Mapping[int, float] = field(default_factory=dict)  # of open trials: seconds by their last epoch's end
    workers: tuple[WorkerRecord, ...] = ()  # that serve it
    trouble: str | None = None  # why this is not the newest state
    engine: Engine | None = None  # that trains it; None: not settled yet
    awaited: str = "waiting for a worker"  # what must happen before the first trial begins

    @property
    def goes_on(self) -> bool:
        """Whether there is a trial to end, or one to begin."""
        return bool(self.open) or self.affordable

    @property
    def live_workers(self) -> int:
        """How many serve it, whether they train or wait."""
        return sum(worker.state is WorkerState.ALIVE for worker in self.workers)

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
        return len(self.open) + len(self.finished)

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
        """A guess at the time to go, as fast as now; None while nothing runs or no epoch has ended."""
        at_once = sum(1 / trial.shared for trial in self.running)  # slots: those that share one count for one
        if not at_once or not self.trained_epochs:
            return None
        ended_epochs = sum(trial.epochs for trial in self.finished)
        epochs_a_trial = ended_epochs / len(self.finished) if ended_epochs else self.epochs  # pruned ones included
        epochs_to_go = sum(max(epochs_a_trial - trial.epochs, 1.0) for trial in self.open)
        # Of what runs, the time behind the last epoch's end is left out.
        seconds = sum(trial.seconds for trial in self.finished)
        seconds += sum(self.reported.get(trial.number, trial.seconds) for trial in self.open if trial.epochs)
        seconds_an_epoch = seconds / self.trained_epochs
        limits = []
        trials = self.trials if self.state is StudyState.STOPPING else self.budget.trials
        if trials is not None:
            unstarted = max(0, trials - self.trials)
            limits.append((epochs_to_go + unstarted * epochs_a_trial) * seconds_an_epoch)
        if self.budget.total_epochs is not None:
            limits.append((self.budget.total_epochs - self.trained_epochs) * seconds_an_epoch)
        if self.budget.seconds is not None:
            limits.append(self.budget.seconds - self.trained_seconds)
        return max(0.0, min(limits)) / at_once if limits else None

    @property
    def expected_end(self) -> datetime | None:
        """`remaining_seconds` after this look."""
        return None if self.remaining_seconds is None else self.looked_at + timedelta(seconds=self.remaining_seconds)

    def _merit(self, trial: TrialRecord) -> tuple[float, int]:
        value = math.inf if trial.value is None else -trial.value if self.maximize else trial.value
        return (value, trial.number)


class SnapshotReader:
    """Looks at one study again and again; a look costs what is new since the last one."""

    def __init__(self, db: Database, name: str) -> None:
        self._db = db
        self._name = name
        self._finished: list[TrialRecord] = []
        self._reported: dict[
            int, tuple[int, float]
        ] = {}  # open trial -> its epochs, and its seconds when they were new
        spec = get_study(db, name).spec
        self._objective = spec.objective
        self._knobs = tuple(parameter.name for parameter in spec.space.parameters)

    def look(self) -> Snapshot:
        """Four statements. Raises NotFound, DatabaseLost."""
        study = get_study(self._db, self._name)
        seen = max((trial.finish_seq or 0 for trial in self._finished), default=0)
        trials = list_trials(self._db, study, finished_after=seen)
        ended = [trial for trial in trials if trial.state.finished]
        again = {trial.number for trial in trials}  # some had failed before, and are run again
        self._finished = [trial for trial in self._finished if trial.number not in again]
        self._finished += sorted(ended, key=lambda trial: trial.finish_seq or 0)
        open_ = tuple(trial for trial in trials if trial.attempts and not trial.state.finished)
        self._reported = {trial.number: self._last_report(trial) for trial in open_}
        now = datetime.now(UTC)
        return Snapshot(
            name=study.name,
            state=study.state,
            reason=study.reason,
            affordable=spent(self._db, study.study_id).affordable,
            metric=self._objective.metric,
            maximize=self._objective.direction == "maximize",
            epochs=study.epochs,
            budget=study.budget,
            knobs=self._knobs,
            open=open_,
            finished=tuple(self._finished),
            engine=study.engine,
            elapsed=max(0.0, ((study.ended_at or now) - study.created_at).total_seconds()),
            looked_at=now,
            reported={number: seconds for number, (_, seconds) in self._reported.items()},
            workers=tuple(
                worker for worker in list_workers(self._db) if worker.serves is None or study.name in worker.serves
            ),
        )

    def _last_report(self, trial: TrialRecord) -> tuple[int, float]:
        epochs, seconds = self._reported.get(trial.number, (None, 0.0))
        return (trial.epochs, seconds if epochs == trial.epochs else trial.seconds)

    def follow(self, pause: Callable[[float], object] = time.sleep) -> Iterator[Snapshot]:
        """Looks twice a second until the study has ended; while the database is away, gives the last look again.

        `pause` waits so many seconds, or less where there may be something to see.
        """
        seen = self.look()
        yield seen
        while not seen.state.ended:
            pause(REFRESH_SECONDS)
            try:
                seen = self.look()
            except DatabaseLost as error:
                age = (datetime.now(UTC) - seen.looked_at).total_seconds()
                seen = replace(seen, trouble=f"{error}; this was {duration(age)} ago")
            yield seen
