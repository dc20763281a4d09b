"""The statements of PostgresStorage. Each text is one message to the server, and one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.storage import study_statements
from tuner.storage.frozen import COLUMNS, DETAILS, REQUEST_KEY
from tuner.storage.postgres_storage.changes import Changes
from tuner.storage.statement_parts import UTC_NOW

# --- studies ---------------------------------------------------------------------------------------------------------

RESERVE_STUDY = "SELECT nextval(pg_get_serial_sequence('studies', 'study_id'))::int AS study_id"

# Sent twice, it finds what the first one made: its id was reserved before.
CREATE_STUDY = """
WITH study AS (
    INSERT INTO studies (study_id, study_name) VALUES (%(study)s, %(name)s) ON CONFLICT DO NOTHING RETURNING study_id
)
INSERT INTO study_directions (study_id, objective, direction)
SELECT study.study_id, given.place - 1, given.direction::studydirection
FROM study, unnest(%(directions)s::text[]) WITH ORDINALITY AS given (direction, place);
SELECT study_id FROM studies WHERE study_name = %(name)s"""

# Locks in the order of the workers, a lease before its trial; claims, new trials and writes that have begun are waited
# for, so that no row comes in behind the deletion.
DELETE_STUDY = f"""
SELECT FROM tuner.study WHERE study_id = %(study)s FOR UPDATE;
SELECT FROM studies WHERE study_id = %(study)s FOR UPDATE;
SELECT FROM tuner.lease WHERE study_id = %(study)s ORDER BY trial_id FOR UPDATE;
SELECT FROM trials WHERE study_id = %(study)s FOR UPDATE;
{study_statements.DELETE}"""

_SET_STUDY_ATTRIBUTE = """
INSERT INTO {table} (study_id, key, value_json)
SELECT study_id, %(key)s, %(value)s FROM studies WHERE study_id = %(study)s
ON CONFLICT (study_id, key) DO UPDATE SET value_json = excluded.value_json RETURNING study_id"""
SET_STUDY_USER_ATTRIBUTE = _SET_STUDY_ATTRIBUTE.format(table="study_user_attributes")
SET_STUDY_SYSTEM_ATTRIBUTE = _SET_STUDY_ATTRIBUTE.format(table="study_system_attributes")

STUDY_ID = "SELECT study_id FROM studies WHERE study_name = %(name)s"

_STUDIES = """
SELECT studies.study_id, studies.study_name, direction.*, user_attribute.*, system_attribute.*
FROM studies
CROSS JOIN LATERAL (
    SELECT array_agg(direction::text ORDER BY objective) AS directions
    FROM study_directions WHERE study_directions.study_id = studies.study_id
) AS direction
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS user_keys, array_agg(value_json) AS user_values
    FROM study_user_attributes AS attribute WHERE attribute.study_id = studies.study_id
) AS user_attribute
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS system_keys, array_agg(value_json) AS system_values
    FROM study_system_attributes AS attribute WHERE attribute.study_id = studies.study_id
) AS system_attribute"""
STUDIES = f"{_STUDIES} ORDER BY studies.study_id"
STUDY = f"{_STUDIES} WHERE studies.study_id = %(study)s"

# --- reading trials --------------------------------------------------------------------------------------------------

# What `StudyCache` does not know yet. No row at all: there is no such study. The creation of trials is in order, by
# the study's lock, so that all those above `mark` which are not `known` are new.
SYNC = f"""
SELECT EXISTS (SELECT FROM tuner.study WHERE study.study_id = studies.study_id) AS of_workers, trial.*
FROM studies LEFT JOIN LATERAL (
    SELECT {COLUMNS} FROM trials {DETAILS}
    WHERE trials.study_id = studies.study_id AND (
        trials.trial_id > %(mark)s AND trials.trial_id <> ALL (%(known)s::int[])
        OR trials.trial_id = ANY (%(stale)s::int[])
        OR trials.trial_id = ANY (%(running)s::int[]) AND trials.state <> 'RUNNING'
        OR trials.trial_id = ANY (%(waiting)s::int[]) AND trials.state <> 'WAITING'
        OR trials.trial_id = ANY (%(failed)s::int[])
            AND (trials.state <> 'FAIL' OR trials.datetime_complete > %(failed_until)s)
    )
) AS trial ON true
WHERE studies.study_id = %(study)s
ORDER BY trial.number, trial.trial_id"""

TRIAL = f"SELECT trials.study_id, {COLUMNS} FROM trials {DETAILS} WHERE trials.trial_id = %(trial)s"

# --- writing trials --------------------------------------------------------------------------------------------------

_REQUEST = f"""request AS (
    INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT trial_id, '{REQUEST_KEY}', %(request)s FROM trial
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
)"""

_UNMARK = f"""unmarked AS (
    DELETE FROM trial_system_attributes AS attribute USING trial
    WHERE attribute.trial_id = trial.trial_id AND attribute.key = '{REQUEST_KEY}'
)"""

# One for each kind of `Changes`; `trial` is the row that is to be written, if it may be.
_INSERTS = {
    "params": """
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT trial.trial_id, given.name, given.value, given.distribution
    FROM trial, unnest(%(param_names)s::text[], %(param_values)s::float8[], %(param_distributions)s::text[])
        WITH ORDINALITY AS given (name, value, distribution, place)
    ORDER BY given.place""",
    "user_attributes": """
    INSERT INTO trial_user_attributes (trial_id, key, value_json)
    SELECT trial.trial_id, given.key, given.value
    FROM trial, unnest(%(user_keys)s::text[], %(user_values)s::text[]) AS given (key, value)""",
    "system_attributes": """
    INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT trial.trial_id, given.key, given.value
    FROM trial, unnest(%(system_keys)s::text[], %(system_values)s::text[]) AS given (key, value)""",
    "reported": """
    INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
    SELECT trial.trial_id, given.step,
        CASE WHEN given.value NOT IN ('NaN', 'Infinity', '-Infinity') THEN given.value END,
        (CASE given.value WHEN 'NaN' THEN 'NAN' WHEN 'Infinity' THEN 'INF_POS' WHEN '-Infinity' THEN 'INF_NEG'
            ELSE 'FINITE' END)::trialintermediatevaluetype
    FROM trial, unnest(%(steps)s::int[], %(reported)s::float8[]) AS given (step, value)""",
    "objectives": """
    INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT trial.trial_id, given.objective,
        CASE WHEN given.value NOT IN ('Infinity', '-Infinity') THEN given.value END,
        (CASE given.value WHEN 'Infinity' THEN 'INF_POS' WHEN '-Infinity' THEN 'INF_NEG'
            ELSE 'FINITE' END)::trialvaluetype
    FROM trial, unnest(%(objectives)s::int[], %(objective_values)s::float8[]) AS given (objective, value)""",
}
_REPLACE = {
    "params": """(trial_id, param_name)
    DO UPDATE SET param_value = excluded.param_value, distribution_json = excluded.distribution_json""",
    "user_attributes": "(trial_id, key) DO UPDATE SET value_json = excluded.value_json",
    "system_attributes": "(trial_id, key) DO UPDATE SET value_json = excluded.value_json",
    "reported": """(trial_id, step) DO UPDATE SET
    intermediate_value = excluded.intermediate_value, intermediate_value_type = excluded.intermediate_value_type""",
    "objectives": "(trial_id, objective) DO UPDATE SET value = excluded.value, value_type = excluded.value_type",
}
_KEEP = dict.fromkeys(_INSERTS, "DO NOTHING")

# Trials that tuner's workers have not ended are theirs.
_OPEN = """state IN ('RUNNING', 'WAITING')
    AND NOT EXISTS (SELECT FROM tuner.lease WHERE lease.trial_id = trials.trial_id AND lease.outcome IS NULL)"""

_HOLD = f"""
    SELECT trial_id FROM trials WHERE trial_id = %(trial)s AND {_OPEN} FOR NO KEY UPDATE
"""
_HOLD_ENDED = """
    SELECT trial_id FROM trials WHERE trial_id = %(trial)s AND state NOT IN ('RUNNING', 'WAITING') FOR NO KEY UPDATE
"""
_START = f"""
    UPDATE trials SET state = 'RUNNING', datetime_start = {UTC_NOW}
    WHERE trial_id = %(trial)s AND state = 'WAITING' AND {_OPEN} RETURNING trial_id, datetime_start
"""
_MOVE = f"""
    UPDATE trials SET state = %(state)s::trialstate,
        datetime_complete = CASE WHEN %(state)s NOT IN ('RUNNING', 'WAITING') THEN {UTC_NOW} END
    WHERE trial_id = %(trial)s AND {_OPEN} RETURNING trial_id, datetime_complete
"""

# Optuna numbers trials by counting them, under the study's lock. Repeated after its answer was lost, this finds the
# trial that it made: the lock is given first come first served, so that what a broken connection has left behind
# comes before.
_CREATE = f"""
    INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
    SELECT (SELECT count(*) FROM trials WHERE study_id = %(study)s), study_id, %(state)s::trialstate,
        CASE WHEN %(now)s THEN {UTC_NOW} ELSE %(start)s::timestamp END, %(complete)s::timestamp
    FROM studies
    WHERE study_id = %(study)s AND NOT EXISTS (SELECT FROM made)
        AND NOT EXISTS (SELECT FROM tuner.study WHERE study.study_id = %(study)s)
    RETURNING trial_id, number, datetime_start
"""
_MADE = f"""made AS (
    SELECT trials.trial_id, trials.number, trials.datetime_start
    FROM trials JOIN trial_system_attributes AS attribute USING (trial_id)
    WHERE trials.study_id = %(study)s AND trials.trial_id > %(mark)s
        AND attribute.key = '{REQUEST_KEY}' AND attribute.value_json = %(request)s
)"""

# Why a write was refused; no row: there is no such trial.
REFUSAL = f"""
SELECT trials.state::text, trials.number, studies.study_name,
    EXISTS (SELECT FROM tuner.lease WHERE lease.trial_id = trials.trial_id AND lease.outcome IS NULL) AS of_workers,
    (SELECT value_json FROM trial_system_attributes AS attribute
        WHERE attribute.trial_id = trials.trial_id AND attribute.key = '{REQUEST_KEY}') AS request
FROM trials JOIN studies USING (study_id) WHERE trials.trial_id = %(trial)s"""


def create_trial(changes: Changes) -> str:
    """Gives the new trial's id, number and start; no row where there is no such study or it is the workers'."""
    parts = [_MADE, f"trial AS ({_CREATE})", _REQUEST, *_needed(changes)]
    return f"""
SELECT FROM studies WHERE study_id = %(study)s FOR UPDATE;
WITH {", ".join(parts)}
SELECT * FROM made UNION ALL SELECT * FROM trial"""


def write_trial(changes: Changes) -> str:
    """Gives the trial's row where it was written; none where it has ended, is the workers', or does not exist."""
    return _write(_HOLD, _needed(changes))


def move_trial(changes: Changes) -> str:
    """As `write_trial`, and gives the trial another state; with its end the mark of its request goes."""
    return _write(_MOVE, [_UNMARK, *_needed(changes)])


def complete_trial(changes: Changes) -> str:
    """Adds what an ended trial lacks, changes nothing that it has, and gives it as TRIAL does."""
    return f"{_write(_HOLD_ENDED, _needed(changes, _KEEP))};{TRIAL}"


def _write(trial: str, parts: Sequence[str]) -> str:
    return f"WITH {', '.join([f'trial AS ({trial})', *parts])} SELECT * FROM trial"


def _needed(changes: Changes, on_conflict: Mapping[str, str] = _REPLACE) -> list[str]:
    return [
        f"{kind} AS ({insert}\n    ON CONFLICT {on_conflict[kind]}\n)"
        for kind, insert in _INSERTS.items()
        if getattr(changes, kind)
    ]


# Once it is known that a trial was made, the mark of its request has served.
UNMARK = f"DELETE FROM trial_system_attributes WHERE trial_id = %(trial)s AND key = '{REQUEST_KEY}'"

# WAITING becomes RUNNING; no row where it does not wait, or is the workers'.
START_TRIAL = _write(_START, [_REQUEST])
