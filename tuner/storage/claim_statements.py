"""The statements behind `claims`, each one message to the server.

Times are the server's own. A trial's lease row says whether it is held: `lease_until` is null where nobody holds it,
`outcome` is null until it has ended. Optuna's rows are written beside it, so that its dashboard and API read the same.
"""

from tuner.spec.search import MAX_TRIALS

CANCELLED_REASON = "the study was cancelled"
LOST_REASON = "its worker was not heard of any more"
CUT_OFF_REASON = "its worker was lost while no other reached the database"

LOCK = "SELECT 1 FROM tuner.study WHERE study_id = %(study)s FOR UPDATE;"

# Writes of an attempt go through only while it holds the trial, and no other program has ended that.
_OPEN = "lease.outcome IS NULL AND lease.lease_until IS NOT NULL"
_MINE = f"lease.trial_id = %(trial)s AND lease.attempt = %(attempt)s AND {_OPEN}"
_RUNS = "EXISTS (SELECT FROM public.trials WHERE trials.trial_id = lease.trial_id AND trials.state = 'RUNNING')"
_FENCE = f"{_MINE} AND {_RUNS}"

# Each worker has a lease of its own length.
_RENEWED = "clock_timestamp() + (SELECT lease FROM tuner.worker WHERE worker.worker_id = lease.worker_id)"

# Of the attempt that holds a trial: until now, or until its lease ended. (`least` alone passes over nulls.) Trials that
# share a slot share its seconds: by their number when one of them was claimed last, whoever has left since.
SECONDS_HELD = """CASE WHEN lease.lease_until IS NULL THEN 0 ELSE greatest(
    extract(epoch FROM least(clock_timestamp(), lease.lease_until) - lease.started_at), 0)::float8 / lease.shared END"""

UTC_NOW = "clock_timestamp() AT TIME ZONE 'utc'"  # Optuna keeps naive times in UTC

# What a study has used of its budget. Ended trials were added up when they ended, so that this costs the same however
# many there are.
SPENT = f"""
SELECT study.study_id, study.state, study.reason, used.*, further.*, further.numbers > 0 AS affordable
FROM tuner.study, LATERAL (
    SELECT coalesce((SELECT max(number) + 1 FROM tuner.lease WHERE study_id = study.study_id), 0) AS trials,
        count(*)::int AS open, count(*) FILTER (WHERE lease.attempt > 0)::int AS begun,
        study.finished_epochs + coalesce(sum(lease.epoch), 0)::bigint AS epochs,
        study.finished_epochs + count(*) * study.epochs AS reserved_epochs,
        study.finished_seconds + coalesce(sum(lease.seconds + {SECONDS_HELD}), 0) AS seconds
    FROM tuner.lease WHERE lease.study_id = study.study_id AND lease.outcome IS NULL
) AS used, LATERAL (
    SELECT CASE WHEN used.seconds >= (study.budget ->> 'seconds')::float8 THEN 0 ELSE greatest(0, least(
        {MAX_TRIALS}, (study.budget ->> 'trials')::bigint - used.trials,
        ((study.budget ->> 'total_epochs')::bigint - used.reserved_epochs) / study.epochs
    ))::int END AS numbers
) AS further
WHERE study.study_id = %(study)s"""

_DEATHS = "('lost', 'crashed', 'timed_out')"  # ends of an attempt that another attempt follows

# A database that was away for half a lease may have kept live workers from renewing theirs: no lease is taken to have
# run out before all had a whole one to renew it. Where it ran out while nobody reached the database, that is no death.
_UNBROKEN = "pulse.last > clock_timestamp() - me.lease / 2 AND pulse.since < clock_timestamp() - me.lease"

# Workers on which the trial has not died yet, this one included.
_ELSEWHERE = """EXISTS (
    SELECT FROM tuner.worker
    WHERE worker.ended_at IS NULL AND worker.last_seen > clock_timestamp() - worker.lease
        AND (worker.studies IS NULL OR {trial}.study_id = ANY (worker.studies))
        AND worker.worker_id NOT IN (SELECT worker_id FROM {died} AS died WHERE worker_id IS NOT NULL)
)"""

# A trial that this worker has killed often enough is left to others, if there are any.
_DIED_BEFORE = f"""SELECT worker_id FROM tuner.attempt
    WHERE attempt.trial_id = lease.trial_id AND attempt.attempt > lease.forgiven AND attempt.ended IN {_DEATHS}"""
_SPARED = f"""lease.deaths >= %(max_deaths)s AND %(worker)s IN ({_DIED_BEFORE})
    AND {_ELSEWHERE.format(trial="lease", died=f"({_DIED_BEFORE})")}"""

# Trials, under the study's lock: those that this request was given already, else some whose lease ran out, else some
# that were given back or skipped, else new numbers. Without `numbers` it is one trial, of any number; with them, trials
# of these numbers, to train beside others in a slot: numbers below a new one are skipped, and free for all. A row that
# is locked is being renewed: its worker lives. Optuna numbers trials by counting rows, so their rows are made here.
CLAIM = f"""{LOCK}
WITH me AS (
    SELECT worker_id, lease FROM tuner.worker WHERE worker_id = %(worker)s
), spent AS ({SPENT}
), answered AS (
    SELECT * FROM tuner.lease WHERE study_id = %(study)s AND request = %(request)s AND {_OPEN}
), free AS (
    SELECT lease.*, lease.lease_until > pulse.since AS died FROM tuner.lease, tuner.pulse, me, spent
    WHERE lease.study_id = %(study)s AND lease.outcome IS NULL AND spent.state <> 'paused'
        AND NOT (spent.state = 'stopping' AND lease.attempt = 0)  -- skipped and never begun: left for a study resumed
        AND (%(numbers)s::int[] IS NULL OR (
            lease.number = ANY (%(numbers)s::int[]) AND lease.largest_stack IS NOT DISTINCT FROM %(largest_stack)s::int
        ))
        AND NOT EXISTS (SELECT FROM answered)
        AND CASE WHEN lease.lease_until IS NULL THEN NOT ({_SPARED})
            ELSE lease.lease_until < clock_timestamp() AND {_UNBROKEN} END
    ORDER BY lease.lease_until IS NULL, lease.number LIMIT %(most)s
    FOR UPDATE OF lease SKIP LOCKED
), fresh AS (
    SELECT number FROM spent, me, unnest(coalesce(%(numbers)s::int[], ARRAY[spent.trials])) AS number
    WHERE spent.state = 'running' AND number >= spent.trials AND number < spent.trials + spent.numbers
        AND %(largest_stack)s::int IS NULL AND NOT EXISTS (SELECT FROM answered)
    ORDER BY number LIMIT %(most)s - (SELECT count(*) FROM free)
), slot AS (
    SELECT cardinality(%(beside)s::int[]) + (SELECT count(*) FROM free) + (SELECT count(*) FROM fresh) AS trials
), lost AS (
    UPDATE tuner.attempt SET ended_at = free.lease_until, ended = CASE WHEN free.died THEN 'lost' ELSE 'cut_off' END,
        reason = CASE WHEN free.died THEN '{LOST_REASON}' ELSE '{CUT_OFF_REASON}' END
    FROM free WHERE attempt.trial_id = free.trial_id AND attempt.attempt = free.attempt AND free.lease_until IS NOT NULL
), taken AS (
    UPDATE tuner.lease SET worker_id = me.worker_id, request = %(request)s, attempt = lease.attempt + 1,
        deaths = lease.deaths + coalesce(free.died, false)::int, seconds = lease.seconds + {SECONDS_HELD},
        lease_until = clock_timestamp() + me.lease, started_at = clock_timestamp(), shared = slot.trials
    FROM free, me, slot WHERE lease.trial_id = free.trial_id RETURNING lease.*
), gone_on AS (
    UPDATE trials SET state = 'RUNNING', datetime_start = coalesce(datetime_start, {UTC_NOW})
    FROM taken WHERE trials.trial_id = taken.trial_id AND trials.state = 'WAITING'
), trial AS (
    INSERT INTO trials (number, study_id, state, datetime_start)
    SELECT number, %(study)s, CASE WHEN fresh IS NULL THEN 'WAITING' ELSE 'RUNNING' END::trialstate,
        CASE WHEN fresh IS NOT NULL THEN {UTC_NOW} END
    FROM spent, generate_series(spent.trials, (SELECT max(number) FROM fresh)) AS number LEFT JOIN fresh USING (number)
    ORDER BY number
    RETURNING trial_id, number, state
), started AS (
    INSERT INTO tuner.lease (trial_id, study_id, number, worker_id, request, lease_until, started_at, shared)
    SELECT trial.trial_id, %(study)s, trial.number, me.worker_id, %(request)s, clock_timestamp() + me.lease,
        clock_timestamp(), slot.trials
    FROM trial, me, slot WHERE trial.state = 'RUNNING' RETURNING *
), skipped AS (
    INSERT INTO tuner.lease (trial_id, study_id, number, attempt)
    SELECT trial_id, %(study)s, number, 0 FROM trial WHERE state = 'WAITING' RETURNING number
), begun AS (
    INSERT INTO tuner.attempt (trial_id, attempt, worker_id, started_at)
    SELECT trial_id, attempt, worker_id, started_at FROM taken
    UNION ALL SELECT trial_id, attempt, worker_id, started_at FROM started
), joined AS (
    UPDATE tuner.lease SET shared = slot.trials FROM slot
    WHERE lease.trial_id = ANY (%(beside)s::int[]) AND lease.worker_id = %(worker)s AND {_OPEN}
        AND slot.trials > cardinality(%(beside)s::int[])
), finished AS (
    UPDATE tuner.study SET state = 'finished', ended_at = clock_timestamp() FROM spent
    WHERE study.study_id = spent.study_id
        AND ((spent.state = 'stopping' AND spent.begun = 0)
            OR (spent.state = 'running' AND spent.open = 0 AND NOT spent.affordable))
    RETURNING study.state
), claimed AS (
    SELECT * FROM answered UNION ALL SELECT * FROM taken UNION ALL SELECT * FROM started
), died AS (  -- what `lost` has just written is not seen here
    SELECT attempt.trial_id, attempt.attempt, attempt.worker_id, attempt.ended, attempt.reason
    FROM claimed JOIN tuner.attempt USING (trial_id) LEFT JOIN free USING (trial_id)
    WHERE attempt.attempt > claimed.forgiven AND attempt.attempt < claimed.attempt
        AND (attempt.ended IN {_DEATHS} OR (attempt.ended IS NULL AND free.died))
)
SELECT coalesce(finished.state, spent.state) AS state, spent.reason, spent.begun,
    claimed.trial_id, claimed.number, claimed.attempt,
    claimed.deaths, claimed.checkpoint, claimed.largest_stack,
    (SELECT trials.state::text FROM trials WHERE trials.trial_id = claimed.trial_id) AS trial_state,
    EXISTS (
        SELECT FROM trial_system_attributes AS written
        WHERE written.trial_id = claimed.trial_id AND written.key = 'tuner:history'
    ) AS sampled,
    (SELECT count(DISTINCT worker_id) FROM died WHERE died.trial_id = claimed.trial_id) AS dead_workers,
    EXISTS (SELECT FROM died WHERE died.trial_id = claimed.trial_id AND worker_id = %(worker)s) AS died_here,
    claimed.deaths >= %(max_deaths)s
        AND {_ELSEWHERE.format(trial="claimed", died="(SELECT * FROM died WHERE died.trial_id = claimed.trial_id)")}
        AS elsewhere,
    (SELECT jsonb_build_array(ended, reason) FROM died WHERE died.trial_id = claimed.trial_id
        ORDER BY attempt DESC LIMIT 1) AS last_death,
    supply.next, spent.open + supply.next - spent.trials AS open,
    spent.numbers - (supply.next - spent.trials) AS numbers, supply.waiting, supply.slots
FROM spent LEFT JOIN finished ON true LEFT JOIN claimed ON true CROSS JOIN LATERAL (
    SELECT greatest(spent.trials, (SELECT max(number) + 1 FROM fresh)) AS next,
        ARRAY(
            SELECT number FROM tuner.lease
            WHERE study_id = %(study)s AND outcome IS NULL AND trial_id NOT IN (SELECT trial_id FROM free)
                AND (lease_until IS NULL OR lease_until < clock_timestamp())
            UNION ALL SELECT number FROM skipped ORDER BY number
        ) AS waiting,
        (SELECT coalesce(sum(slots), 1)::int FROM tuner.worker
            WHERE ended_at IS NULL AND last_seen > clock_timestamp() - lease
                AND (studies IS NULL OR %(study)s = ANY (studies))) AS slots
) AS supply
ORDER BY claimed.number"""

# Samplers see a trial's parameters in the order in which they were written.
WRITE_POINTS = f"""
WITH held AS (
    UPDATE tuner.lease SET lease_until = {_RENEWED}
    FROM unnest(%(trials)s::int[], %(attempts)s::int[], %(looked_at)s::text[]) AS mine (trial_id, attempt, looked_at)
    WHERE lease.trial_id = mine.trial_id AND lease.attempt = mine.attempt AND {_OPEN} AND {_RUNS}
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
    UPDATE tuner.lease SET lease_until = {_RENEWED}, epoch = {_EPOCH},
        checkpoint = coalesce(%(checkpoint)s, lease.checkpoint)
    WHERE {_FENCE} RETURNING trial_id
), {_PROGRESS.format(attributes="%(attributes)s::jsonb")}
SELECT trial_id FROM held"""

# finish_seq is handed out under the study's lock: the order of finishing is the order of the commits. Sent again, since
# the answer was lost, it finds the trial ended by this attempt and changes nothing.
TELL = f"""{LOCK}
WITH held AS (
    UPDATE tuner.lease SET outcome = %(outcome)s, reason = %(reason)s, epoch = {_EPOCH},
        checkpoint = coalesce(%(checkpoint)s, lease.checkpoint),
        seconds = lease.seconds + {SECONDS_HELD}, lease_until = NULL, finish_seq = study.last_finish_seq + 1
    FROM tuner.study WHERE study.study_id = lease.study_id AND {_FENCE}
    RETURNING lease.trial_id, lease.study_id, lease.attempt, lease.epoch, lease.seconds
), counted AS (
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
    WHERE {whose} RETURNING trial_id, attempt
), closed AS (
    UPDATE tuner.attempt SET ended = %(ended)s, ended_at = clock_timestamp(), reason = %(reason)s
    FROM held WHERE attempt.trial_id = held.trial_id AND attempt.attempt = held.attempt
)
UPDATE trials SET state = 'WAITING' FROM held WHERE trials.trial_id = held.trial_id RETURNING trials.trial_id"""

_HELD_BY_WORKER = f"lease.worker_id = %(worker)s AND {_OPEN}"

GIVE_BACK = _GIVE_BACK.format(seconds_held=SECONDS_HELD, whose=_FENCE)
GIVE_BACK_ALL = _GIVE_BACK.format(seconds_held=SECONDS_HELD, whose=_HELD_BY_WORKER)

# Another program has ended a trial that an attempt holds: that stands, and is entered in our books.
ADOPT = f"""{LOCK}
WITH held AS (
    UPDATE tuner.lease SET outcome = CASE trials.state::text
            WHEN 'COMPLETE' THEN 'complete' WHEN 'PRUNED' THEN 'pruned' ELSE 'cancelled' END,
        reason = 'ended by another program', seconds = lease.seconds + {SECONDS_HELD}, lease_until = NULL,
        finish_seq = study.last_finish_seq + 1
    FROM tuner.study, public.trials
    WHERE study.study_id = lease.study_id AND trials.trial_id = lease.trial_id
        AND trials.state IN ('COMPLETE', 'PRUNED', 'FAIL') AND {_MINE}
    RETURNING lease.*
), counted AS (
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
UPDATE tuner.lease SET lease_until = {_RENEWED} WHERE {_HELD_BY_WORKER};
{PULSE};
SELECT worker.worker_id IS NOT NULL AS known, study.study_id, study.state,
    (SELECT max(number) FROM tuner.lease WHERE lease.study_id = study.study_id) AS highest
FROM (VALUES (1)) AS one
LEFT JOIN tuner.worker ON worker.worker_id = %(worker)s
LEFT JOIN tuner.study ON study.study_id = ANY (%(studies)s::int[])"""
