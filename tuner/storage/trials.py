"""Trials as people look at them. Workers write them by `tuner.storage.claims`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuner.errors import NotFound
from tuner.spec.space import Point
from tuner.states import Outcome, TrialState
from tuner.storage.connection import Database, Row
from tuner.storage.frozen import parse_distribution
from tuner.storage.statement_parts import SECONDS_HELD
from tuner.storage.studies import StudyRecord

BEST = "best"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    trial_id: int
    number: int
    state: TrialState
    value: float | None
    best_epoch: int | None  # whose value and weights stand for the trial, once it has ended
    latest: float | None  # while it has not ended: the value of the last epoch reported
    params: Point
    epochs: int  # trained and reported
    attempts: int
    deaths: int
    outcome: Outcome | None  # None until it has ended
    reason: str | None
    seconds: float  # of training, all attempts
    worker: str | None  # "host:process" that holds it, or held it last
    checkpoint: str | None  # below the artifacts folder
    finish_seq: int | None  # its place in the order of finishing, from 1
    started_at: datetime | None
    ended_at: datetime | None
    shared: int = 1  # trials that share its slot, and the slot's seconds


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """One start of a trial."""

    attempt: int  # from 1
    worker: str | None  # "host:process"
    started_at: datetime
    ended_at: datetime | None
    ended: str | None  # an outcome, "given_back", "lost" or "cut_off"; None: it goes on
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class TrialDetails:
    trial: TrialRecord
    attempts: Sequence[AttemptRecord]
    curve: Mapping[int, float]  # epoch, from 1 -> value of the objective's metric
    attributes: Mapping[str, Any]  # as the dashboard shows them


_TRIALS = f"""
SELECT trials.trial_id, trials.number, trials.state::text, trials.datetime_start, trials.datetime_complete,
    coalesce(lease.epoch, 0) AS epochs, coalesce(lease.attempt, 0) AS attempts, coalesce(lease.deaths, 0) AS deaths,
    coalesce(lease.shared, 1) AS shared, lease.outcome,
    CASE WHEN lease.lease_until < clock_timestamp() THEN 'its worker is lost: another will take it'
        ELSE coalesce(lease.reason, (
            SELECT reason FROM tuner.attempt
            WHERE attempt.trial_id = trials.trial_id AND attempt.attempt > lease.forgiven AND ended_at IS NOT NULL
            ORDER BY attempt.attempt DESC LIMIT 1
        )) END AS reason, coalesce(lease.seconds, 0) + {SECONDS_HELD} AS seconds, lease.checkpoint,
    lease.finish_seq, worker.host || ':' || worker.pid AS worker,
    (SELECT value FROM public.trial_values WHERE trial_values.trial_id = trials.trial_id AND objective = 0) AS value,
    (SELECT value_json::int FROM public.trial_user_attributes AS attribute
        WHERE attribute.trial_id = trials.trial_id AND key = 'best_epoch' AND value_json <> 'null') AS best_epoch,
    (SELECT intermediate_value FROM public.trial_intermediate_values AS reported
        WHERE lease.outcome IS NULL AND reported.trial_id = trials.trial_id ORDER BY step DESC LIMIT 1) AS latest,
    (SELECT json_object_agg(param_name, json_build_array(param_value, distribution_json) ORDER BY param_id)
        FROM public.trial_params WHERE trial_params.trial_id = trials.trial_id) AS params
FROM public.trials LEFT JOIN tuner.lease USING (trial_id) LEFT JOIN tuner.worker USING (worker_id)
WHERE trials.study_id = %(study)s"""

_ORDER_OF_MERIT = """CASE (SELECT direction FROM public.study_directions
    WHERE study_directions.study_id = trials.study_id AND objective = 0)
    WHEN 'MAXIMIZE' THEN -trial_values.value ELSE trial_values.value END, trials.number"""

_BEST = f"""
SELECT trials.number FROM public.trials JOIN public.trial_values USING (trial_id)
WHERE trials.study_id = %(study)s AND trials.state = 'COMPLETE' AND objective = 0
ORDER BY {_ORDER_OF_MERIT} LIMIT %(count)s"""

_CURVE = """
SELECT step, coalesce(intermediate_value, CASE intermediate_value_type
    WHEN 'INF_POS' THEN float8 'infinity' WHEN 'INF_NEG' THEN float8 '-infinity' ELSE float8 'nan' END) AS value
FROM public.trial_intermediate_values WHERE trial_id = %(trial)s ORDER BY step"""

_ATTEMPTS = """
SELECT attempt, worker.host || ':' || worker.pid AS worker, attempt.started_at, attempt.ended_at, ended, attempt.reason
FROM tuner.attempt LEFT JOIN tuner.worker USING (worker_id) WHERE trial_id = %(trial)s ORDER BY attempt"""

_ENDS = """
SELECT ended, count(*)::int AS times FROM tuner.attempt JOIN tuner.lease USING (trial_id)
WHERE lease.study_id = %(study)s AND ended IS NOT NULL
    AND (attempt.attempt < lease.attempt OR lease.outcome IS NULL)
GROUP BY ended ORDER BY ended"""

_ATTRIBUTES = """
SELECT key, value_json::json AS value FROM public.trial_user_attributes WHERE trial_id = %(trial)s ORDER BY key"""


def list_trials(db: Database, study: StudyRecord, *, finished_after: int = 0) -> list[TrialRecord]:
    """The trials of a study by number, in one statement; without those that ended up to `finished_after`."""
    rows = db.execute(
        _TRIALS + " AND (lease.finish_seq IS NULL OR lease.finish_seq > %(after)s) ORDER BY trials.number",
        study=study.study_id,
        after=finished_after,
    )
    return [_record(row) for row in rows]


def find_trial(db: Database, study: StudyRecord, which: str | int) -> TrialRecord:
    """A trial by its number, or "best".

    Raises NotFound.
    """
    number = _number(db, study, which)
    rows = db.execute(_TRIALS + " AND trials.number = %(number)s", study=study.study_id, number=number)
    if not rows:
        raise NotFound(f"study {study.name!r} has no trial {number}; `tuner trial list {study.name}` shows them")
    return _record(rows[0])


def trial_details(db: Database, study: StudyRecord, which: str | int) -> TrialDetails:
    """A trial with its attempts and its curve.

    Raises NotFound.
    """
    trial = find_trial(db, study, which)
    return TrialDetails(
        trial=trial,
        attempts=[AttemptRecord(**row._asdict()) for row in db.execute(_ATTEMPTS, trial=trial.trial_id)],
        curve={row.step: row.value for row in db.execute(_CURVE, trial=trial.trial_id)},
        attributes={row.key: row.value for row in db.execute(_ATTRIBUTES, trial=trial.trial_id)},
    )


def interruptions(db: Database, study: StudyRecord) -> dict[str, int]:
    """How the attempts ended that did not end their trial, and how often: given_back, lost …"""
    return {row.ended: row.times for row in db.execute(_ENDS, study=study.study_id)}


def best_trials(db: Database, study: StudyRecord, count: int = 1) -> list[TrialRecord]:
    """The best complete trials, the best first; of equal ones the lowest number."""
    numbers = [row.number for row in db.execute(_BEST, study=study.study_id, count=count)]
    rows = db.execute(_TRIALS + " AND trials.number = ANY (%(numbers)s::int[])", study=study.study_id, numbers=numbers)
    return sorted(map(_record, rows), key=lambda trial: numbers.index(trial.number))


def _number(db: Database, study: StudyRecord, which: str | int) -> int:
    if which == BEST:
        best = db.execute(_BEST, study=study.study_id, count=1)
        if not best:
            raise NotFound(f"study {study.name!r} has no complete trial yet")
        return int(best[0].number)
    try:
        return int(which)
    except ValueError:
        raise NotFound(f"no trial {which!r}: a trial is named by its number, or as {BEST!r}") from None


def _record(row: Row) -> TrialRecord:
    return TrialRecord(
        trial_id=row.trial_id,
        number=row.number,
        state=TrialState(row.state),
        value=row.value,
        best_epoch=row.best_epoch,
        latest=row.latest,
        params={
            name: parse_distribution(kind).to_external_repr(value) for name, (value, kind) in (row.params or {}).items()
        },
        epochs=row.epochs,
        attempts=row.attempts,
        deaths=row.deaths,
        outcome=Outcome(row.outcome) if row.outcome else None,
        reason=row.reason,
        seconds=row.seconds,
        worker=row.worker,
        checkpoint=row.checkpoint,
        finish_seq=row.finish_seq,
        started_at=_utc(row.datetime_start),
        ended_at=_utc(row.datetime_complete),
        shared=row.shared,
    )


def _utc(time: datetime | None) -> datetime | None:
    """Optuna keeps UTC without saying so."""
    return time.replace(tzinfo=UTC) if time else None
