"""Judges the curves of a study's trials by those of all its trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from tuner.search import History
from tuner.search.pruners import Decision, Pruner, as_judged
from tuner.states import TrialState
from tuner.storage.claims import Held
from tuner.storage.connection import Database
from tuner.storage.history import HistoryReader

READING_SHARE = 0.05  # of the storage thread's time may go into reading what other workers report, …
LONGEST_UNREAD_SECONDS = 5.0  # … unless that would leave it unread for longer


class Judge:
    """Knows at once what its own worker has reported, and a moment later what others have.

    To read all trials that run, with their curves, at every report of each of them would take all the time there is:
    with 256 of them a read takes 40 ms. Where one worker serves a study, no decision depends on when it was read.
    """

    def __init__(self, pruner: Pruner, reader: HistoryReader) -> None:
        self._pruner = pruner
        self._reader = reader
        self._trials: dict[int, FrozenTrial] = {}  # number -> as it was last heard of
        self._read_again_at = 0.0

    def decide(
        self, db: Database, held: Held, curve: Mapping[int, float], attributes: Mapping[str, Any], epoch: int
    ) -> Decision:
        """Whether a trial whose curve ends at `epoch` (from 1) is to be given up."""
        if not self._pruner.judges(epoch):
            return Decision(prune=False, attributes={})
        if time.monotonic() >= self._read_again_at:
            self._read(db)
        return self._pruner.decide(self._history(), as_judged(held.trial_id, held.number, curve, attributes), epoch)

    def learn(self, held: Held, curve: Mapping[int, float], attributes: Mapping[str, Any], state: TrialState) -> None:
        """Takes note of what has been stored for a trial of this worker."""
        if self._pruner.active:
            self._trials[held.number] = as_judged(held.trial_id, held.number, curve, attributes, state)

    def _history(self) -> History:
        trials = self._trials.values()
        return History(
            direction=self._reader.direction,
            finished=[trial for trial in trials if trial.state.is_finished()],
            running=[trial for trial in trials if not trial.state.is_finished()],
        )

    def _read(self, db: Database) -> None:
        began = time.monotonic()
        history = self._reader.read(db)
        self._trials = {trial.number: trial for trial in (*history.finished, *history.running)}
        now = time.monotonic()
        self._read_again_at = now + min((now - began) / READING_SHARE, LONGEST_UNREAD_SECONDS)
