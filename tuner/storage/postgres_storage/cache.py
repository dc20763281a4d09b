"""The trials of one study, held in memory: what a sync asks for costs what is new, whatever their number."""

from __future__ import annotations

import bisect
import copy
import math
from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.storage.connection import Row
from tuner.storage.frozen import frozen_trial
from tuner.storage.postgres_storage.changes import Changes

UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)


class StudyCache:
    """Trials are never changed in place, only replaced: what was handed out stays as it was.

    `owned` are the RUNNING trials that this storage has started. They are written by it and not read again, unless
    somebody else has ended them.
    """

    def __init__(self) -> None:
        self.synced_at = -math.inf  # on time.monotonic
        self.owned: set[int] = set()
        self.distributions: dict[str, BaseDistribution] = {}  # of each parameter, where it was first seen
        self._trials: list[FrozenTrial] = []  # by number
        self._by_id: dict[int, FrozenTrial] = {}
        self._unfinished: dict[TrialState, set[int]] = {state: set() for state in UNFINISHED}
        self._failed: set[int] = set()  # only where tuner's workers may try them again
        self._failed_until = datetime.min
        # All trials up to the mark are known, and some above it.
        self.mark = 0
        self._known: set[int] = set()

    def sync_arguments(self, unfinished: bool) -> dict[str, Any]:
        """The values of the statement SYNC; `unfinished`: also what others have written of trials that still run."""
        running = self._unfinished[TrialState.RUNNING]
        return {
            "mark": self.mark,
            "known": list(self._known),
            "stale": list(running - self.owned) if unfinished else [],
            "running": list(running),
            "waiting": list(self._unfinished[TrialState.WAITING]),
            "failed": list(self._failed),
            "failed_until": self._failed_until,
        }

    def synced(self, rows: Sequence[Row], asked_at: float) -> None:
        """Takes in what SYNC gave."""
        for row in rows:
            if row.trial_id is not None:
                self.owned.discard(row.trial_id)
                self.put(frozen_trial(row))
                if row.of_workers and row.state == TrialState.FAIL.name:
                    self._failed.add(row.trial_id)
                    self._failed_until = max(self._failed_until, row.datetime_complete or datetime.min)
        ended = (trial_id for trial_id in self._known if self._by_id[trial_id].state.is_finished())
        self.mark = max(ended, default=self.mark)
        self._known = {trial_id for trial_id in self._known if trial_id > self.mark}
        self.synced_at = asked_at

    def put(self, trial: FrozenTrial) -> None:
        """Takes in a trial, or another state of it."""
        trial_id = trial._trial_id
        self._replace(trial)
        self._by_id[trial_id] = trial
        for state, ids in self._unfinished.items():
            (ids.add if trial.state is state else ids.discard)(trial_id)
        if trial.state is not TrialState.RUNNING:
            self.owned.discard(trial_id)
        self._failed.discard(trial_id)
        if trial_id > self.mark:
            self._known.add(trial_id)
        for name, distribution in trial.distributions.items():
            self.distributions.setdefault(name, distribution)

    def get(self, trial_id: int) -> FrozenTrial | None:
        return self._by_id.get(trial_id)

    def settled(self, trial_id: int) -> FrozenTrial | None:
        """A trial, if nobody else can have changed it since it was read; tuner's workers may retry what has failed."""
        trial = self._by_id.get(trial_id)
        settled = trial and (trial_id in self.owned or trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
        return trial if settled else None

    def change(self, trial_id: int, changes: Changes) -> None:
        self.put(changes.applied_to(self._by_id[trial_id]))

    def move(self, trial_id: int, state: TrialState, completed: datetime | None) -> None:
        trial = copy.copy(self._by_id[trial_id])
        trial.state, trial.datetime_complete = state, completed
        self.put(trial)

    def select(self, states: Container[TrialState] | None) -> list[FrozenTrial]:
        """A new list, by number."""
        if states is None:
            return self._trials.copy()
        if wants_finished(states):
            return [trial for trial in self._trials if trial.state in states]
        chosen = [self._by_id[i] for state, ids in self._unfinished.items() if state in states for i in ids]
        return sorted(chosen, key=_place)

    def ids(self) -> Iterable[int]:
        return self._by_id.keys()

    def _replace(self, trial: FrozenTrial) -> None:
        place = _place(trial)
        if not self._trials or _place(self._trials[-1]) < place:
            self._trials.append(trial)
            return
        index = bisect.bisect_left(self._trials, place, key=_place)
        if trial._trial_id in self._by_id:
            self._trials[index] = trial
        else:
            self._trials.insert(index, trial)


def wants_finished(states: Container[TrialState] | None) -> bool:
    return states is None or any(state in states for state in TrialState if state.is_finished())


def wants_unfinished(states: Container[TrialState] | None) -> bool:
    return states is None or any(state in states for state in UNFINISHED)


def _place(trial: FrozenTrial) -> tuple[int, int]:
    return trial.number, trial._trial_id
