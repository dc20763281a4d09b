"""`PostgresStorage`: how its trials are made and written."""

from __future__ import annotations

import copy
import json
import logging
import math
import threading
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import DatabaseLost, InvalidInput
from tuner.storage.connection import Row
from tuner.storage.frozen import local_time, stored_time
from tuner.storage.optuna_storage import check_optuna_tables
from tuner.storage.postgres_storage import statements as sql
from tuner.storage.postgres_storage.cache import StudyCache
from tuner.storage.postgres_storage.changes import Changes, numbered
from tuner.storage.postgres_storage.reading import TrialReader, no_trial
from tuner.storage.schema import ensure_schema

# Parameters and attributes of a running trial go with its next report, or alone after this: soon enough for the
# samplers of other processes and for the dashboard, late enough for a first report that comes at once.
WRITE_BEHIND_SECONDS = 0.2

log = logging.getLogger("tuner.storage")


class PostgresStorage(TrialReader):
    """Optuna's studies in PostgreSQL, in the tables of Optuna's RDBStorage, at a fraction of its messages.

    Takes one connection, for any number of threads. Trials are held in memory: a look at them costs one message,
    which brings what is new. A trial that this storage has started is read from memory, and its parameters and
    attributes are written with its next report, or after WRITE_BEHIND_SECONDS. So asking for a trial costs two
    messages, suggesting none, report, should_prune and tell one each.

    A lost connection is made again for up to three minutes, and nothing is written twice. Studies that tuner's
    workers serve can be read and deleted; their trials are made and ended by the workers alone.

    Makes the tables where there are none. Raises DatabaseError, and InvalidInput for a URL that cannot be used.
    """

    def __init__(self, url: str) -> None:
        ensure_schema(url)
        super().__init__(url)
        check_optuna_tables(self._db)

    def _begin(self) -> None:
        super()._begin()
        self._behind: dict[int, Changes] = {}  # trial_id -> what is to be written yet

    def remove_session(self) -> None:
        """Writes what is to be written yet and closes the connection; the next call makes another."""
        with self._alone():
            for trial_id in list(self._behind):
                self._write_behind(trial_id)
            self._db.close()

    # --- making ------------------------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        template = template_trial or _EMPTY
        changes = Changes.of(template)
        with self._alone():
            study = self._studies.setdefault(study_id, StudyCache())
            rows = self._rows(
                sql.create_trial(changes),
                study=study_id,
                mark=study.mark,
                request=_new_request(),
                state=template.state.name,
                now=template_trial is None,
                start=stored_time(template.datetime_start),
                complete=stored_time(template.datetime_complete),
                **changes.arguments(),
            )
            if not rows:
                name = self.get_study_name_from_id(study_id)
                raise InvalidInput(
                    f"study {name!r} is served by tuner's workers, who alone make its trials; "
                    f"`tuner study set {name} --trials N` lets them make more"
                )
            (made,) = rows
            if template.state is TrialState.RUNNING:
                trial = copy.deepcopy(template)
                trial.number, trial._trial_id = made.number, made.trial_id
                trial.datetime_start = local_time(made.datetime_start)
                self._own(study_id, trial)
        return int(made.trial_id)

    def _start(self, trial_id: int) -> bool:
        """Makes a trial that waits this storage's own; False where somebody else was faster."""
        request = _new_request()
        with self._alone():
            rows, again = self._send(sql.START_TRIAL, trial=trial_id, request=request)
            if not rows:
                refusal = self._refusal(trial_id)
                self.check_trial_is_updatable(trial_id, TrialState[refusal.state])
                if not (again and refusal.request == request):
                    return False
            study_id = self._study_of.get(trial_id, -1)
            waiting = self._studies[study_id].get(trial_id) if study_id in self._studies and rows else None
            if waiting is None:
                self._own(*self._read(trial_id))
            else:
                trial = copy.copy(waiting)
                trial.state, trial.datetime_start = TrialState.RUNNING, local_time(rows[0].datetime_start)
                self._own(study_id, trial)
        return True

    def _own(self, study_id: int, trial: FrozenTrial) -> None:
        study = self._studies.setdefault(study_id, StudyCache())
        study.put(trial)
        study.owned.add(trial._trial_id)
        self._study_of[trial._trial_id] = study_id
        self._thread.proposing = study_id

    # --- writing -----------------------------------------------------------------------------------------------------

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._alone():
            study_id, trial = self._read(trial_id)
            self.check_trial_is_updatable(trial_id, trial.state)
            study = self._studies.setdefault(study_id, StudyCache())
            if study.synced_at == -math.inf:
                self._sync(study, study_id)
            known = study.distributions.setdefault(param_name, distribution)
            check_distribution_compatibility(known, distribution)
            self._write_soon(trial_id, Changes(params={param_name: (param_value_internal, distribution)}))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write_soon(trial_id, Changes(user_attributes={key: _plain(value)}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write_soon(trial_id, Changes(system_attributes={key: _plain(value)}))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._thread.proposing = None
        self._write(trial_id, Changes(reported={step: intermediate_value}))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if state is TrialState.RUNNING:
            return self._start(trial_id)
        self._thread.proposing = None
        self._write(trial_id, Changes(objectives=numbered(values)), state)
        return True

    def _write_soon(self, trial_id: int, changes: Changes) -> None:
        with self._alone():
            study = self._studies.get(self._study_of.get(trial_id, -1))
            if study is None or trial_id not in study.owned:
                self._write(trial_id, changes)
                return
            study.change(trial_id, changes)
            if trial_id in self._behind:
                self._behind[trial_id].add(changes)
            else:
                self._behind[trial_id] = changes
                threading.Timer(WRITE_BEHIND_SECONDS, self._write_behind, (trial_id,)).start()

    def _write_behind(self, trial_id: int) -> None:
        """Writes what has waited. Called where nobody could catch an error; the next write will meet it again."""
        with self._alone():
            if trial_id in self._behind:
                try:
                    self._write(trial_id, Changes())
                except Exception as error:
                    log.warning("parameters or attributes of trial id %d were not stored: %s", trial_id, error)

    def _write(self, trial_id: int, changes: Changes, state: TrialState | None = None) -> None:
        """Writes at once, with what has waited, and gives the trial its next state, if any."""
        with self._alone():
            waited = self._behind.pop(trial_id, None)
            whole = Changes()
            whole.add(waited or whole)
            whole.add(changes)
            statement = sql.write_trial(whole) if state is None else sql.move_trial(whole)
            try:
                rows, again = self._send(
                    statement, trial=trial_id, state=state.name if state else None, **whole.arguments()
                )
            except DatabaseLost:
                if waited:
                    self._behind[trial_id] = waited
                raise
            study = self._studies.get(self._study_of.get(trial_id, -1))
            if rows and study:
                study.change(trial_id, changes)
                if state and trial_id in study.owned:  # of another's, there may be more to read
                    study.move(trial_id, state, local_time(rows[0].datetime_complete))
            elif not rows:
                if study:
                    study.owned.discard(trial_id)  # somebody else has ended it: what they wrote is to be read
                if not (again and state and self._stands(trial_id, state, changes)):
                    self._refuse(trial_id)

    def _stands(self, trial_id: int, state: TrialState, changes: Changes) -> bool:
        """Whether a write that was sent twice was done the first time."""
        _, trial = self._read(trial_id)
        return trial.state is state and numbered(trial.values) == changes.objectives

    def _refusal(self, trial_id: int) -> Row:
        rows = self._rows(sql.REFUSAL, trial=trial_id)
        if not rows:
            raise no_trial(trial_id)
        return rows[0]

    def _refuse(self, trial_id: int) -> None:
        refusal = self._refusal(trial_id)
        if refusal.of_workers:
            raise InvalidInput(
                f"trial {refusal.number} of study {refusal.study_name!r} is in the hands of tuner's workers, "
                "who alone write it until it has ended"
            )
        raise UpdateFinishedTrialError(f"trial {refusal.number} has ended ({refusal.state}) and cannot be changed")


_EMPTY = FrozenTrial(
    number=-1,
    trial_id=-1,
    state=TrialState.RUNNING,
    value=None,
    datetime_start=None,
    datetime_complete=None,
    params={},
    distributions={},
    user_attrs={},
    system_attrs={},
    intermediate_values={},
)


def _plain(value: Any) -> Any:
    """As it will be read again; the caller's may change before it is written. Raises TypeError for what is no JSON."""
    return json.loads(json.dumps(value))


def _new_request() -> str:
    """Names one call, so that the row it made is known again, as the JSON that an attribute holds."""
    return json.dumps(str(uuid4()))
