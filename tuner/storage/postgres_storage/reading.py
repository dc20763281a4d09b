"""The trials of PostgresStorage as they are read: from memory, where nobody else can have changed them."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Container

from optuna.trial import FrozenTrial, TrialState

from tuner.storage.frozen import frozen_trial
from tuner.storage.postgres_storage import statements as sql
from tuner.storage.postgres_storage.cache import StudyCache, wants_unfinished
from tuner.storage.postgres_storage.studies import StudyStorage, no_study

# A new trial's point is proposed from what was read when the trial was asked for, if it is proposed within this.
PROPOSAL_SECONDS = 5.0


class Proposal(threading.local):
    """How far this thread is with the point of a new trial."""

    study_id: int | None = None
    begun = False  # a parameter was suggested


class TrialReader(StudyStorage):
    def _begin(self) -> None:
        super()._begin()
        self._studies: dict[int, StudyCache] = {}
        self._study_of: dict[int, int] = {}  # trial_id -> study_id, of all trials held in memory
        self._proposal = Proposal()

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        with self._alone():
            self._forget(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._read(trial_id)[1]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._alone():
            study = self._studies.setdefault(study_id, StudyCache())
            if deepcopy or not self._proposes_from(study, study_id, states):
                self._sync(study, study_id, states)
            trials = study.select(states)
        return copy.deepcopy(trials) if deepcopy else trials

    def _proposes_from(self, study: StudyCache, study_id: int, states: Container[TrialState] | None) -> bool:
        """Whether this is a sampler that looks again at what was read when its trial was asked for.

        Samplers look before the first parameter; only those that mind running trials look again for each of the rest.
        Whoever asks for waiting trials asks for another trial.
        """
        if self._proposal.study_id != study_id or time.monotonic() > study.synced_at + PROPOSAL_SECONDS:
            return False
        if states is None:
            return not self._proposal.begun
        return TrialState.WAITING not in states and (not self._proposal.begun or TrialState.RUNNING in states)

    def _sync(self, study: StudyCache, study_id: int, states: Container[TrialState] | None = None) -> None:
        asked_at = time.monotonic()
        rows = self._rows(sql.SYNC, study=study_id, **study.sync_arguments(wants_unfinished(states)))
        if not rows:
            self._forget(study_id)
            raise no_study(study_id)
        study.synced(rows, asked_at)
        self._study_of.update((row.trial_id, study_id) for row in rows if row.trial_id is not None)

    def _cache_of(self, trial_id: int) -> StudyCache | None:
        """What is held of the trial's study, if the trial is held."""
        return self._studies.get(self._study_of.get(trial_id, -1))

    def _forget(self, study_id: int) -> None:
        for trial_id in self._studies.pop(study_id, StudyCache()).ids():
            self._study_of.pop(trial_id, None)

    def _read(self, trial_id: int) -> tuple[int, FrozenTrial]:
        """A trial and its study; from memory if nobody else can have changed it."""
        with self._alone():
            study_id = self._study_of.get(trial_id, -1)
            if study_id in self._studies:
                trial = self._studies[study_id].settled(trial_id)
                if trial is not None:
                    return study_id, trial
            rows = self._rows(sql.TRIAL, trial=trial_id)
        if not rows:
            raise no_trial(trial_id)
        return rows[0].study_id, frozen_trial(rows[0])


def no_trial(trial_id: int) -> KeyError:
    return KeyError(f"there is no trial with id {trial_id}")
