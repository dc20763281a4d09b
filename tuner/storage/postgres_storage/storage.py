"""`PostgresStorage`: its trials, as Optuna's studies, samplers and pruners read and write them."""

from __future__ import annotations

import copy
import json
import logging
import math
import threading
import time
from collections.abc import Container, Sequence
from typing import Any
from uuid import uuid4

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import DatabaseLost, InvalidInput
from tuner.storage.connection import Row
from tuner.storage.frozen import frozen_trial, local_time, stored_time
from tuner.storage.optuna_storage import check_optuna_tables
from tuner.storage.postgres_storage import statements as sql
from tuner.storage.postgres_storage.cache import StudyCache, wants_unfinished
from tuner.storage.postgres_storage.changes import Changes, numbered
from tuner.storage.postgres_storage.studies import StudyStorage, no_study
from tuner.storage.schema import ensure_schema

# Parameters and attributes of a running trial go with its next report, or alone after this: soon enough for the
# samplers of other processes and for the dashboard, late enough for a first report that comes at once.
WRITE_BEHIND_SECONDS = 0.2

# A new trial's point is proposed from what was read when the trial was asked for, if it is proposed within this.
PROPOSAL_SECONDS = 5.0

log = logging.getLogger("tuner.storage")


class PostgresStorage(StudyStorage):
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
        self._studies: dict[int, StudyCache] = {}
        self._study_of: dict[int, int] = {}  # trial_id -> study_id, of all trials held in memory
        self._behind: dict[int, Changes] = {}  # trial_id -> what is to be written yet
        self._thread = threading.local()  # .proposing: the study of which this thread has a new trial

    def remove_session(self) -> None:
        """Writes what is to be written yet and closes the connection; the next call makes another."""
        with self._alone():
            for trial_id in list(self._behind):
                self._write_behind(trial_id)
            self._db.close()

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        with self._alone():
            self._forget(study_id)

    # --- reading -----------------------------------------------------------------------------------------------------

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
        """Whether this is a sampler that looks again at what was read when its trial was asked for."""
        return (
            getattr(self._thread, "proposing", None) == study_id
            and time.monotonic() < study.synced_at + PROPOSAL_SECONDS
            and (states is None or TrialState.WAITING not in states)  # another trial is being asked for
        )

    def _sync(self, study: StudyCache, study_id: int, states: Container[TrialState] | None = None) -> None:
        asked_at = time.monotonic()
        rows = self._rows(sql.SYNC, study=study_id, **study.sync_arguments(wants_unfinished(states)))
        if not rows:
            self._forget(study_id)
            raise no_study(study_id)
        study.synced(rows, asked_at)
        self._study_of.update((row.trial_id, study_id) for row in rows if row.trial_id is not None)

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
            raise _no_trial(trial_id)
        return rows[0].study_id, frozen_trial(rows[0])

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
        json.dumps(value)  # raises now what would be raised when it is written
        self._write_soon(trial_id, Changes(user_attributes={key: value}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        json.dumps(value)
        self._write_soon(trial_id, Changes(system_attributes={key: value}))

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
            raise _no_trial(trial_id)
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


def _new_request() -> str:
    """Names one call, so that the row it made is known again, as the JSON that an attribute holds."""
    return json.dumps(str(uuid4()))


def _no_trial(trial_id: int) -> KeyError:
    return KeyError(f"there is no trial with id {trial_id}")
