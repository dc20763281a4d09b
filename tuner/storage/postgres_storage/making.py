"""How trials are made and started in PostgresStorage: once, though a request may be sent twice."""

from __future__ import annotations

import copy
import json
from uuid import uuid4

from optuna.trial import FrozenTrial, TrialState

from tuner.errors import InvalidInput
from tuner.storage.connection import Row
from tuner.storage.frozen import local_time, stored_time
from tuner.storage.postgres_storage import statements as sql
from tuner.storage.postgres_storage.cache import StudyCache
from tuner.storage.postgres_storage.changes import Changes
from tuner.storage.postgres_storage.reading import TrialReader, no_trial


class TrialMaker(TrialReader):
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
            if template.state.is_finished():  # of others, the mark goes when they end
                self._rows(sql.UNMARK, trial=made.trial_id)
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
        self._proposal.study_id, self._proposal.begun = study_id, False

    def _refusal(self, trial_id: int) -> Row:
        rows = self._rows(sql.REFUSAL, trial=trial_id)
        if not rows:
            raise no_trial(trial_id)
        return rows[0]


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
