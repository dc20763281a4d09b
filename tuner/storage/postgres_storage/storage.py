"""`PostgresStorage`: how its trials are written."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from tuner.errors import InvalidInput
from tuner.storage.frozen import frozen_trial, local_time
from tuner.storage.optuna_tables import check_optuna_tables
from tuner.storage.postgres_storage import statements as sql
from tuner.storage.postgres_storage.cache import StudyCache
from tuner.storage.postgres_storage.changes import (
    Changes,
    numbered,
    storable_distribution,
    storable_name,
    storable_value,
)
from tuner.storage.postgres_storage.making import TrialMaker
from tuner.storage.schema import ensure_schema

# Parameters and attributes of a running trial go with its next report, or alone after this: soon enough for the
# samplers of other processes and for the dashboard, late enough for a first report that comes at once.
WRITE_BEHIND_SECONDS = 0.2

log = logging.getLogger("tuner.storage")


class PostgresStorage(TrialMaker):
    """Optuna's studies in PostgreSQL, in the tables of Optuna's RDBStorage, at a fraction of its messages.

    Takes one connection, for any number of threads. Trials are held in memory: a look at them costs one message,
    which brings what is new. A trial that this storage has started is read from memory, and its parameters and
    attributes are written with its next report, or after WRITE_BEHIND_SECONDS. So asking for a trial costs two
    messages, suggesting none, report, should_prune and tell one each.

    A lost connection is made again for up to three minutes, and nothing is written twice. A process that ends writes
    what has waited first: with the database away, that too takes up to three minutes. Pickling writes it at once.

    Studies that tuner's workers serve can be read and deleted; their trials are made and ended by the workers alone.

    Makes the tables where there are none. Raises DatabaseError, and InvalidInput for a URL that cannot be used.
    """

    def __init__(self, url: str) -> None:
        ensure_schema(url)
        super().__init__(url)
        check_optuna_tables(self._db)

    def _begin(self) -> None:
        super()._begin()
        self._behind: dict[int, Changes] = {}  # trial_id -> what is to be written yet

    def __getstate__(self) -> dict[str, Any]:
        """The process that gets a study or a trial goes on with what is in the database."""
        self._write_all_behind()
        return super().__getstate__()

    def remove_session(self) -> None:
        """Writes what is to be written yet and closes the connection; the next call makes another."""
        with self._alone():
            self._write_all_behind()
            self._db.close()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._alone():
            study_id, trial = self._read(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            study = self._studies.setdefault(study_id, StudyCache())
            if study.synced_at == -math.inf:
                self._sync(study, study_id)
            point = {storable_name(param_name): (param_value_internal, storable_distribution(distribution))}
            known = study.distributions.setdefault(param_name, distribution)
            check_distribution_compatibility(known, distribution)
            self._write_soon(trial_id, Changes(params=point))
        self._proposal.begun = True

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write_soon(trial_id, Changes(user_attributes={storable_name(key): storable_value(value)}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write_soon(trial_id, Changes(system_attributes={storable_name(key): storable_value(value)}))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._proposal.study_id = None
        self._write(trial_id, Changes(reported={step: intermediate_value}))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if state is TrialState.RUNNING:
            return self._start(trial_id)
        self._proposal.study_id = None
        self._write(trial_id, Changes(objectives=numbered(values)), state)
        return True

    def _write_soon(self, trial_id: int, changes: Changes) -> None:
        with self._alone():
            study = self._cache_of(trial_id)
            if study is None or trial_id not in study.owned:
                self._write(trial_id, changes)
                return
            study.change(trial_id, changes)
            if trial_id in self._behind:
                self._behind[trial_id] = self._behind[trial_id].followed_by(changes)
            else:
                self._behind[trial_id] = changes
                threading.Timer(WRITE_BEHIND_SECONDS, self._write_behind, (trial_id,)).start()

    def _write_all_behind(self) -> None:
        with self._alone():
            for trial_id in list(self._behind):
                self._write_behind(trial_id)

    def _write_behind(self, trial_id: int) -> None:
        """Writes what has waited. Called where nobody could catch an error; the next write will meet it again."""
        with self._alone():
            if trial_id in self._behind:
                try:
                    self._write(trial_id, Changes())
                except UpdateFinishedTrialError:
                    pass  # somebody else has ended it; what has waited was written nevertheless
                except Exception as error:
                    log.warning("parameters or attributes of trial id %d were not stored: %s", trial_id, error)

    def _write(self, trial_id: int, changes: Changes, state: TrialState | None = None) -> None:
        """Writes at once, with what has waited, and gives the trial its next state, if any.

        What has waited goes on waiting if this raises, and is written even where somebody else has ended the trial.
        """
        with self._alone():
            waited = self._behind.get(trial_id)
            whole = changes if waited is None else waited.followed_by(changes)
            statement = sql.write_trial(whole) if state is None else sql.move_trial(whole)
            rows, again = self._send(
                statement, trial=trial_id, state=state.name if state else None, **whole.arguments()
            )
            if waited and not rows:
                self._write_late(trial_id, waited)
            self._behind.pop(trial_id, None)
            study = self._cache_of(trial_id)
            if rows and study:
                study.change(trial_id, changes)
                if state and trial_id in study.owned:  # of another's, there may be more to read
                    study.move(trial_id, state, local_time(rows[0].datetime_complete))
            elif not rows:
                if study:
                    study.owned.discard(trial_id)  # somebody else has ended it: what they wrote is to be read
                if not (again and state and self._stands(trial_id, state, changes)):
                    self._refuse(trial_id)

    def _write_late(self, trial_id: int, waited: Changes) -> None:
        """Adds what has waited to a trial of this storage that somebody else has ended without it."""
        rows = self._rows(sql.complete_trial(waited), trial=trial_id, **waited.arguments())
        study = self._cache_of(trial_id)
        if study and rows:
            study.put(frozen_trial(rows[0]))

    def _stands(self, trial_id: int, state: TrialState, changes: Changes) -> bool:
        """Whether a write that was sent twice was done the first time."""
        _, trial = self._read(trial_id)
        return trial.state is state and numbered(trial.values) == changes.objectives

    def _refuse(self, trial_id: int) -> None:
        refusal = self._refusal(trial_id)
        if refusal.of_workers:
            raise InvalidInput(
                f"trial {refusal.number} of study {refusal.study_name!r} is in the hands of tuner's workers, "
                "who alone write it until it has ended"
            )
        raise UpdateFinishedTrialError(f"trial {refusal.number} has ended ({refusal.state}) and cannot be changed")
