"""What is written of a trial once it is claimed, each one message to the server."""

from tuner.storage.statement_parts import (
    FENCE,
    LEFT_BEHIND,
    LOCK,
    MINE,
    OPEN,
    RENEWED,
    RUNS,
    SECONDS_HELD,
    UTC_NOW,
)

# Samplers see a trial's parameters in the order in which they were written.
WRITE_POINTS = f"""
WITH held AS (
    UPDATE tuner.lease SET lease_until = {RENEWED}
    FROM unnest(%(trials)s::int[], %(attempts)s::int[], %(looked_at)s::text[]) AS mine (trial_id, attempt, looked_at)
    WHERE lease.trial_id = mine.trial_id AND lease.attempt = mine.attempt AND {OPEN} AND {RUNS}
    RETURNING lease.trial_id, mine.looked_at
), point AS (
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT held.trial_id, given.name, given.value, given.distribution
    FROM held JOIN unnest(%(owners)s::int[], %(names)s::text[], %(values)s::float8[], %(distributions)s::text[])
        WITH ORDINALITY AS given (trial_id, name, value, distribution, place) USING (trial_id)
    ORDER BY given.place
    ON CONFLICT DO NOTHING
), attributes AS (
    INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT trial_id, %(key)s, looked_at FROM held
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
)
SELECT trial_id FROM held"""

# Epochs trained again after a death overwrite themselves: with the same values, where training repeats to the bit.
_PROGRESS = """curve AS (
    INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
    SELECT held.trial_id, reported.epoch, reported.value, 'FINITE'
    FROM held, unnest(%(epochs)s::int[], %(values)s::float8[]) AS reported (epoch, value)
    ON CONFLICT (trial_id, step) DO UPDATE SET intermediate_value = excluded.intermediate_value
), attributes AS (
    INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT held.trial_id, given.key, given.value::text FROM held, jsonb_each({attributes}) AS given
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
)"""

_EPOCH = "greatest(lease.epoch, (SELECT max(epoch) FROM unnest(%(epochs)s::int[]) AS epoch))"

REPORT = f"""
WITH held AS (
    UPDATE tuner.lease SET lease_until = {RENEWED}, epoch = {_EPOCH},
        checkpoint = coalesce(%(checkpoint)s, lease.checkpoint)
    WHERE {FENCE} RETURNING trial_id
), {_PROGRESS.format(attributes="%(attributes)s::jsonb")}
SELECT trial_id FROM held"""

# finish_seq is handed out under the study's lock: the order of finishing is the order of the commits. Sent again, since
# the answer was lost, it finds the trial ended by this attempt and changes nothing.
TELL = f"""{LOCK}
WITH held AS (
    UPDATE tuner.lease SET outcome = %(outcome)s, reason = %(reason)s, epoch = {_EPOCH},
        checkpoint = coalesce(%(checkpoint)s, lease.checkpoint),
        seconds = lease.seconds + {SECONDS_HELD}, lease_until = NULL, finish_seq = study.last_finish_seq + 1
    FROM tuner.study WHERE study.study_id = lease.study_id AND {FENCE}
    RETURNING lease.*
), {LEFT_BEHIND}, counted AS (
    UPDATE tuner.study SET last_finish_seq = last_finish_seq + 1, failures = failures + %(failure)s,
        finished_epochs = finished_epochs + held.epoch, finished_seconds = finished_seconds + held.seconds,
        state = CASE WHEN {{too_many}} THEN 'paused' ELSE study.state END,
        reason = CASE WHEN {{too_many}}
            THEN CASE failures WHEN 0 THEN '1 trial failed: ' ELSE failures + 1 || ' trials failed, the last: ' END
                || coalesce(%(reason)s, %(outcome)s) ELSE study.reason END
    FROM held WHERE study.study_id = held.study_id
), ended AS (
    UPDATE trials SET state = %(state)s, datetime_complete = {UTC_NOW} FROM held WHERE trials.trial_id = held.trial_id
), closed AS (
    UPDATE tuner.attempt SET ended = %(outcome)s, ended_at = clock_timestamp(), reason = %(reason)s
    FROM held WHERE attempt.trial_id = held.trial_id AND attempt.attempt = held.attempt
), value AS (
    INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT held.trial_id, 0, %(value)s::float8, 'FINITE' FROM held WHERE %(value)s IS NOT NULL
    ON CONFLICT DO NOTHING
), shown AS (
    INSERT INTO trial_user_attributes (trial_id, key, value_json)
    SELECT held.trial_id, given.key, given.value::text FROM held, jsonb_each(
        jsonb_build_object('epochs', held.epoch, 'attempts', held.attempt, 'seconds', round(held.seconds::numeric, 3))
        || %(user_attributes)s::jsonb
    ) AS given
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
), {_PROGRESS.format(attributes="%(attributes)s::jsonb || %(constraint)s")}
SELECT trial_id FROM held
UNION ALL
SELECT trial_id FROM tuner.lease WHERE trial_id = %(trial)s AND attempt = %(attempt)s AND outcome = %(outcome)s
""".format(
    too_many="%(failure)s = 1 AND study.state = 'running' AND failures + 1 >= (study.budget ->> 'failures')::int"
)

_GIVE_BACK = """
WITH held AS (
    UPDATE tuner.lease SET lease_until = NULL, deaths = deaths + %(died)s, seconds = lease.seconds + {seconds_held},
        largest_stack = least(lease.largest_stack, %(largest_stack)s)
    WHERE {whose} RETURNING lease.*
), {left_behind} closed AS (
    UPDATE tuner.attempt SET ended = %(ended)s, ended_at = clock_timestamp(), reason = %(reason)s
    FROM held WHERE attempt.trial_id = held.trial_id AND attempt.attempt = held.attempt
)
UPDATE trials SET state = 'WAITING' FROM held WHERE trials.trial_id = held.trial_id RETURNING trials.trial_id"""

_HELD_BY_WORKER = f"lease.worker_id = %(worker)s AND {OPEN}"

GIVE_BACK = LOCK + _GIVE_BACK.format(seconds_held=SECONDS_HELD, whose=FENCE, left_behind=f"{LEFT_BEHIND},")
GIVE_BACK_ALL = _GIVE_BACK.format(seconds_held=SECONDS_HELD, whose=_HELD_BY_WORKER, left_behind="")

# Another program has ended a trial that an attempt holds: that stands, and is entered in our books.
ADOPT = f"""{LOCK}
WITH held AS (
    UPDATE tuner.lease SET outcome = CASE trials.state::text
            WHEN 'COMPLETE' THEN 'complete' WHEN 'PRUNED' THEN 'pruned' ELSE 'cancelled' END,
        reason = 'ended by another program', seconds = lease.seconds + {SECONDS_HELD}, lease_until = NULL,
        finish_seq = study.last_finish_seq + 1
    FROM tuner.study, public.trials
    WHERE study.study_id = lease.study_id AND trials.trial_id = lease.trial_id
        AND trials.state IN ('COMPLETE', 'PRUNED', 'FAIL') AND {MINE}
    RETURNING lease.*
), {LEFT_BEHIND}, counted AS (
    UPDATE tuner.study SET last_finish_seq = last_finish_seq + 1,
        finished_epochs = finished_epochs + held.epoch, finished_seconds = finished_seconds + held.seconds
    FROM held WHERE study.study_id = held.study_id
)
UPDATE tuner.attempt SET ended = held.outcome, ended_at = clock_timestamp(), reason = held.reason
FROM held WHERE attempt.trial_id = held.trial_id AND attempt.attempt = held.attempt"""

# The number, the point and the curve stay. What such a trial had spent moves from the study's account back to its own.
RETRY = """
WITH freed AS (
    UPDATE tuner.lease SET outcome = NULL, reason = NULL, finish_seq = NULL, deaths = 0, request = NULL,
        forgiven = attempt
    WHERE study_id = %(study)s AND number = ANY (%(numbers)s::int[]) AND outcome IS NOT NULL
    RETURNING trial_id, epoch, seconds
), waiting AS (
    UPDATE public.trials SET state = 'WAITING', datetime_complete = NULL
    FROM freed WHERE trials.trial_id = freed.trial_id
), hidden AS (
    DELETE FROM public.trial_user_attributes USING freed
    WHERE trial_user_attributes.trial_id = freed.trial_id AND key = 'outcome'
), spent AS (
    SELECT coalesce(sum(epoch), 0) AS epochs, coalesce(sum(seconds), 0) AS seconds FROM freed
)
UPDATE tuner.study SET finished_epochs = finished_epochs - spent.epochs,
    finished_seconds = finished_seconds - spent.seconds, failures = 0
FROM spent WHERE study_id = %(study)s"""

PULSE = """
UPDATE tuner.pulse SET last = clock_timestamp(),
    since = CASE WHEN last < clock_timestamp() - worker.lease / 2 THEN clock_timestamp() ELSE since END
FROM tuner.worker WHERE worker.worker_id = %(worker)s"""

RENEW = f"""
UPDATE tuner.worker SET last_seen = clock_timestamp() WHERE worker_id = %(worker)s;
SELECT FROM tuner.lease WHERE {_HELD_BY_WORKER} ORDER BY trial_id FOR UPDATE;
UPDATE tuner.lease SET lease_until = {RENEWED} WHERE {_HELD_BY_WORKER};
{PULSE};
SELECT worker.worker_id IS NOT NULL AS known, study.study_id, study.state,
    (SELECT max(number) FROM tuner.lease WHERE lease.study_id = study.study_id) AS highest
FROM (VALUES (1)) AS one
LEFT JOIN tuner.worker ON worker.worker_id = %(worker)s
LEFT JOIN tuner.study ON study.study_id = ANY (%(studies)s::int[])"""
