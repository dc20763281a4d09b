"""The statements behind `claims`, each one message to the server.

Times are the server's own. A trial's lease row says whether it is held: `lease_until` is null where nobody holds it,
`outcome` is null until it has ended. Optuna's rows are written beside it, so that its dashboard and API read the same.
"""

_LOCK = "SELECT 1 FROM tuner.study WHERE study_id = %(study)s FOR UPDATE;"

# Writes of an attempt go through only while it holds the trial.
_OPEN = "lease.outcome IS NULL AND lease.lease_until IS NOT NULL"
_FENCE = f"lease.trial_id = %(trial)s AND lease.attempt = %(attempt)s AND {_OPEN}"

_LEASE_UNTIL = "clock_timestamp() + make_interval(secs => %(lease)s)"

# Of the attempt that holds a trial: until now, or until its lease ended. (`least` alone passes over nulls.)
SECONDS_HELD = """CASE WHEN lease.lease_until IS NULL THEN 0 ELSE greatest(
    extract(epoch FROM least(clock_timestamp(), lease.lease_until) - lease.started_at), 0)::float8 END"""

_UTC_NOW = "clock_timestamp() AT TIME ZONE 'utc'"  # Optuna keeps naive times in UTC

_CLAIM_FIELDS = """lease.trial_id, lease.number, lease.attempt, lease.deaths, lease.checkpoint,
    lease.lease_until IS NOT NULL AS expired,
    EXISTS (
        SELECT 1 FROM trial_system_attributes AS written
        WHERE written.trial_id = lease.trial_id AND written.key = 'tuner:history'
    ) AS sampled"""

# What a claim decides on: the study, what it has spent and reserved, and the first trial that is free to be taken
# (a row that is locked is being renewed: its worker lives).
LOOK = f"""{_LOCK}
SELECT study.state, study.budget, study.epochs, spent.*,
    (SELECT to_jsonb(answered) FROM (
        SELECT {_CLAIM_FIELDS} FROM tuner.lease
        WHERE study_id = study.study_id AND request = %(request)s AND outcome IS NULL AND lease_until IS NOT NULL
    ) AS answered) AS answered,
    (SELECT to_jsonb(free) FROM (
        SELECT {_CLAIM_FIELDS} FROM tuner.lease
        WHERE study_id = study.study_id AND outcome IS NULL
            AND (lease_until IS NULL OR lease_until < clock_timestamp())
        ORDER BY lease_until IS NULL, number LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS free) AS free
FROM tuner.study, LATERAL (
    SELECT coalesce(max(lease.number) + 1, 0) AS trials,
        count(*) FILTER (WHERE lease.outcome IS NULL) AS open,
        coalesce(sum(CASE WHEN lease.outcome IS NULL THEN study.epochs ELSE lease.epoch END), 0) AS reserved_epochs,
        coalesce(sum(lease.seconds + {SECONDS_HELD}), 0)
            AS seconds
    FROM tuner.lease WHERE lease.study_id = study.study_id
) AS spent
WHERE study.study_id = %(study)s"""

# Optuna numbers trials by counting rows, so its row is made here, under the study's lock.
START = f"""
WITH trial AS (
    INSERT INTO trials (number, study_id, state, datetime_start)
    VALUES (%(number)s, %(study)s, 'RUNNING', {_UTC_NOW}) RETURNING trial_id
)
INSERT INTO tuner.lease (trial_id, study_id, number, worker_id, request, lease_until, started_at)
SELECT trial_id, %(study)s, %(number)s, %(worker)s, %(request)s, {_LEASE_UNTIL}, clock_timestamp() FROM trial
RETURNING trial_id"""

TAKE = f"""
UPDATE tuner.lease SET worker_id = %(worker)s, request = %(request)s, attempt = attempt + 1,
    deaths = deaths + (lease_until IS NOT NULL)::int, seconds = seconds + {SECONDS_HELD},
    lease_until = {_LEASE_UNTIL}, started_at = clock_timestamp()
WHERE trial_id = %(trial)s;
UPDATE trials SET state = 'RUNNING' WHERE trial_id = %(trial)s"""

FINISH = "UPDATE tuner.study SET state = 'finished', ended_at = clock_timestamp() WHERE study_id = %(study)s"

WRITE_POINT = f"""
WITH held AS (
    UPDATE tuner.lease SET lease_until = {_LEASE_UNTIL} WHERE {_FENCE} RETURNING trial_id
), point AS (
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT held.trial_id, given.name, given.value, given.distribution
    FROM held, unnest(%(names)s::text[], %(values)s::float8[], %(distributions)s::text[])
        AS given (name, value, distribution)
    ON CONFLICT DO NOTHING
), attributes AS (
    INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT held.trial_id, given.key, given.value::text FROM held, jsonb_each(%(attributes)s::jsonb) AS given
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
    UPDATE tuner.lease SET lease_until = {_LEASE_UNTIL}, epoch = {_EPOCH},
        checkpoint = coalesce(%(checkpoint)s, lease.checkpoint)
    WHERE {_FENCE} RETURNING trial_id
), {_PROGRESS.format(attributes="%(attributes)s::jsonb")}
SELECT trial_id FROM held"""

# finish_seq is handed out under the study's lock: the order of finishing is the order of the commits.
TELL = f"""{_LOCK}
WITH held AS (
    UPDATE tuner.lease SET outcome = %(outcome)s, reason = %(reason)s, epoch = {_EPOCH},
        checkpoint = coalesce(%(checkpoint)s, lease.checkpoint),
        seconds = lease.seconds + {SECONDS_HELD}, lease_until = NULL, finish_seq = study.finished_trials + 1
    FROM tuner.study WHERE study.study_id = lease.study_id AND {_FENCE}
    RETURNING lease.trial_id, lease.study_id, lease.attempt, lease.epoch, lease.seconds
), counted AS (
    UPDATE tuner.study SET finished_trials = finished_trials + 1 FROM held WHERE study.study_id = held.study_id
), ended AS (
    UPDATE trials SET state = %(state)s, datetime_complete = {_UTC_NOW} FROM held WHERE trials.trial_id = held.trial_id
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
SELECT trial_id FROM held"""

_GIVE_BACK = """
WITH held AS (
    UPDATE tuner.lease SET lease_until = NULL, {changes}seconds = lease.seconds + {seconds_held}
    WHERE {whose} RETURNING trial_id
)
UPDATE trials SET state = %(state)s FROM held WHERE trials.trial_id = held.trial_id RETURNING trials.trial_id"""

GIVE_BACK = _GIVE_BACK.format(
    changes="reason = %(reason)s, deaths = deaths + %(died)s, ", seconds_held=SECONDS_HELD, whose=_FENCE
)

_HELD_BY_WORKER = f"lease.worker_id = %(worker)s AND {_OPEN}"

GIVE_BACK_ALL = _GIVE_BACK.format(changes="", seconds_held=SECONDS_HELD, whose=_HELD_BY_WORKER)

RENEW = f"""
UPDATE tuner.worker SET last_seen = clock_timestamp() WHERE worker_id = %(worker)s;
UPDATE tuner.lease SET lease_until = {_LEASE_UNTIL} WHERE {_HELD_BY_WORKER};
SELECT study_id, state FROM tuner.study WHERE study_id = ANY (%(studies)s::int[])"""
