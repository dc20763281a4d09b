"""The trials of a study as samplers and pruners see them, kept up to date by one statement a look."""

from __future__ import annotations

from optuna.trial import FrozenTrial

from tuner.search.history import Direction, History
from tuner.storage.connection import Database
from tuner.storage.frozen import COLUMNS, DETAILS, frozen_trial

HISTORY_KEY = "tuner:history"  # a system attribute: what a trial's sampler looked at; it has a point

# Finished trials never change and are numbered in the order of their commits, so what was seen need not be read again.
_NEW = f"""
SELECT lease.finish_seq, {COLUMNS} FROM tuner.lease JOIN trials USING (trial_id) {DETAILS}
WHERE lease.study_id = %(study)s AND (
    lease.finish_seq > %(seen)s OR (lease.outcome IS NULL AND lease.lease_until IS NOT NULL)
)
ORDER BY lease.finish_seq, trials.number"""

_WAITING = f"""
SELECT {COLUMNS} FROM tuner.lease JOIN trials USING (trial_id) {DETAILS}
WHERE lease.study_id = %(study)s AND lease.outcome IS NULL
    AND (lease.lease_until IS NULL OR lease.lease_until < clock_timestamp())
ORDER BY trials.number"""


class HistoryReader:
    """Reads one study's history; a look costs what is new since the last one, and the trials that run."""

    def __init__(self, study_id: int, direction: Direction) -> None:
        self._study_id = study_id
        self.direction: Direction = direction
        self._finished: dict[int, FrozenTrial] = {}  # trial_id -> trial, in the order in which they finished
        self._finish_seq = 0  # of the last of them

    def read(self, db: Database) -> History:
        running = []
        for row in db.execute(_NEW, study=self._study_id, seen=self._finish_seq):
            self._finished.pop(row.trial_id, None)  # it had failed, and is tried again
            trial = frozen_trial(row)
            if row.finish_seq is None:
                running.append(trial)
            else:
                self._finished[row.trial_id] = trial
                self._finish_seq = row.finish_seq
        return History(
            direction=self.direction,
            finished=tuple(self._finished.values()),
            running=tuple(running),
            finish_seq=self._finish_seq,
        )

    def waiting(self, db: Database) -> list[FrozenTrial]:
        """Trials that nobody holds, by number, whether they have a point yet or not."""
        return [frozen_trial(row) for row in db.execute(_WAITING, study=self._study_id)]
