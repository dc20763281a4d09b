"""The trials of a study as samplers and pruners see them, kept up to date by one statement a look."""

from __future__ import annotations

from datetime import UTC, datetime

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from tuner.search.history import Direction, History
from tuner.storage.connection import Database, Row

# Finished trials never change and are numbered in the order of their commits, so what was seen need not be read again.
_NEW = """
SELECT trials.trial_id, trials.number, trials.state::text, trials.datetime_start, trials.datetime_complete,
    lease.finish_seq,
    (SELECT value FROM trial_values WHERE trial_values.trial_id = trials.trial_id AND objective = 0) AS value,
    (SELECT jsonb_object_agg(param_name, jsonb_build_array(param_value, distribution_json))
        FROM trial_params WHERE trial_params.trial_id = trials.trial_id) AS params,
    (SELECT jsonb_object_agg(step, intermediate_value)
        FROM trial_intermediate_values WHERE trial_intermediate_values.trial_id = trials.trial_id) AS curve,
    (SELECT jsonb_object_agg(key, value_json::jsonb)
        FROM trial_system_attributes WHERE trial_system_attributes.trial_id = trials.trial_id) AS attributes
FROM trials JOIN tuner.lease USING (trial_id)
WHERE lease.study_id = %(study)s AND (
    lease.finish_seq > %(seen)s OR (lease.outcome IS NULL AND lease.lease_until IS NOT NULL)
)
ORDER BY lease.finish_seq, trials.number"""


class HistoryReader:
    """Reads one study's history; a look costs what is new since the last one, and the trials that run."""

    def __init__(self, study_id: int, direction: Direction) -> None:
        self._study_id = study_id
        self.direction: Direction = direction
        self._finished: list[FrozenTrial] = []
        self._seen = 0  # finish_seq of the last of these
        self._distributions: dict[str, BaseDistribution] = {}  # parsed once: they are few and slow to parse

    def read(self, db: Database) -> History:
        rows = db.execute(_NEW, study=self._study_id, seen=self._seen)
        finished = [self._trial(row) for row in rows if row.finish_seq is not None]
        running = [self._trial(row) for row in rows if row.finish_seq is None]
        again = {trial.number for trial in (*finished, *running)}  # some had failed before, and are run again
        self._finished = [trial for trial in self._finished if trial.number not in again] + finished
        self._seen = max([self._seen, *(row.finish_seq for row in rows if row.finish_seq is not None)])
        return History(
            direction=self.direction,
            finished=tuple(self._finished),
            running=tuple(running),
            finish_seq=self._seen,
        )

    def _trial(self, row: Row) -> FrozenTrial:
        kinds = {name: self._distribution(text) for name, (_, text) in sorted((row.params or {}).items())}
        return FrozenTrial(
            number=row.number,
            trial_id=row.trial_id,
            state=TrialState[row.state],
            value=row.value,
            datetime_start=row.datetime_start or datetime.now(UTC).replace(tzinfo=None),
            datetime_complete=row.datetime_complete,
            params={name: kind.to_external_repr(row.params[name][0]) for name, kind in kinds.items()},
            distributions=kinds,
            user_attrs={},
            system_attrs=row.attributes or {},
            intermediate_values={int(epoch): value for epoch, value in (row.curve or {}).items()},
        )

    def _distribution(self, text: str) -> BaseDistribution:
        if text not in self._distributions:
            self._distributions[text] = json_to_distribution(text)
        return self._distributions[text]
