"""The statement that claims trials, one message to the server, and that which only looks at what is left."""

from tuner.storage.statement_parts import (
    CUT_OFF_REASON,
    LOCK,
    LOST_REASON,
    OPEN,
    SETTLED,
    SPENT,
    UTC_NOW,
)

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

_WAITING = """SELECT number FROM tuner.lease
    WHERE study_id = %(study)s AND outcome IS NULL AND (lease_until IS NULL OR lease_until < clock_timestamp())"""
_SLOTS = """(
    SELECT coalesce(sum(slots), 1)::int FROM tuner.worker
    WHERE ended_at IS NULL AND last_seen > clock_timestamp() - lease AND (studies IS NULL OR %(study)s = ANY (studies))
)"""

# What a study has left to give out.
SUPPLY = f"""
SELECT spent.next, spent.numbers, spent.open + spent.room AS to_train, ARRAY({_WAITING} ORDER BY number) AS waiting,
    {_SLOTS} AS slots
FROM ({SPENT}) AS spent"""

# Trials, under the study's lock: those that this request was given already, else some whose lease ran out, else some
# that were given back or skipped, else new numbers. Without `numbers` it is one trial, of any number; with them, trials
# of these numbers, to train beside others in a slot: numbers below a new one are skipped, and free for all. A row that
# is locked is being renewed: its worker lives. Optuna numbers trials by counting rows, so their rows are made here.
CLAIM = f"""{LOCK}
WITH me AS (
    SELECT worker_id, lease FROM tuner.worker WHERE worker_id = %(worker)s
), spent AS ({SPENT}
), answered AS (
    SELECT * FROM tuner.lease WHERE study_id = %(study)s AND request = %(request)s AND {OPEN}
), free AS (
    SELECT lease.*, lease.lease_until > pulse.since AS died FROM tuner.lease, tuner.pulse, me, spent
    WHERE lease.study_id = %(study)s AND lease.outcome IS NULL AND spent.state <> 'paused'
        AND (lease.attempt > 0 OR (spent.state = 'running' AND lease.number <= spent.last_skipped))
        AND (%(numbers)s::int[] IS NULL OR (
            lease.number = ANY (%(numbers)s::int[]) AND lease.largest_stack IS NOT DISTINCT FROM %(largest_stack)s::int
        ))
        AND NOT EXISTS (SELECT FROM answered)
        AND CASE WHEN lease.lease_until IS NULL THEN NOT ({_SPARED})
            ELSE lease.lease_until < clock_timestamp() AND {_UNBROKEN} END
    ORDER BY lease.lease_until IS NULL, lease.number LIMIT %(most)s
    FOR UPDATE OF lease SKIP LOCKED
), fresh AS (
    SELECT number FROM spent, me, unnest(coalesce(%(numbers)s::int[], ARRAY[spent.next])) AS number
    WHERE spent.state = 'running' AND number >= spent.next AND number < spent.next + spent.numbers
        AND %(largest_stack)s::int IS NULL AND NOT EXISTS (SELECT FROM answered)
    ORDER BY number LIMIT %(most)s - (SELECT count(*) FROM free)
), mates AS (
    SELECT beside.stack, (
        SELECT count(*) FROM tuner.lease WHERE lease.worker_id = me.worker_id AND lease.stack = beside.stack AND {OPEN}
    ) AS trials
    FROM me LEFT JOIN tuner.lease AS beside ON beside.trial_id = %(beside)s
), slot AS (
    SELECT coalesce(mates.stack, %(request)s) AS stack, mates.trials AS before,
        mates.trials + (SELECT count(*) FROM free) + (SELECT count(*) FROM fresh) AS trials
    FROM mates
), lost AS (
    UPDATE tuner.attempt SET ended_at = free.lease_until, ended = CASE WHEN free.died THEN 'lost' ELSE 'cut_off' END,
        reason = CASE WHEN free.died THEN '{LOST_REASON}' ELSE '{CUT_OFF_REASON}' END
    FROM free WHERE attempt.trial_id = free.trial_id AND attempt.attempt = free.attempt AND free.lease_until IS NOT NULL
), taken AS (
    UPDATE tuner.lease SET worker_id = me.worker_id, request = %(request)s, attempt = lease.attempt + 1,
        deaths = lease.deaths + coalesce(free.died, false)::int, {SETTLED},
        lease_until = clock_timestamp() + me.lease, stack = slot.stack, shared = slot.trials
    FROM free, me, slot WHERE lease.trial_id = free.trial_id RETURNING lease.*
), gone_on AS (
    UPDATE trials SET state = 'RUNNING', datetime_start = coalesce(datetime_start, {UTC_NOW})
    FROM taken WHERE trials.trial_id = taken.trial_id AND trials.state = 'WAITING'
), trial AS (
    INSERT INTO trials (number, study_id, state, datetime_start)
    SELECT number, %(study)s, CASE WHEN fresh IS NULL THEN 'WAITING' ELSE 'RUNNING' END::trialstate,
        CASE WHEN fresh IS NOT NULL THEN {UTC_NOW} END
    FROM spent, generate_series(spent.next, (SELECT max(number) FROM fresh)) AS number LEFT JOIN fresh USING (number)
    ORDER BY number
    RETURNING trial_id, number, state
), started AS (
    INSERT INTO tuner.lease (trial_id, study_id, number, worker_id, request, lease_until, counted_from, stack, shared)
    SELECT trial.trial_id, %(study)s, trial.number, me.worker_id, %(request)s, clock_timestamp() + me.lease,
        clock_timestamp(), slot.stack, slot.trials
    FROM trial, me, slot WHERE trial.state = 'RUNNING' RETURNING *
), skipped AS (
    INSERT INTO tuner.lease (trial_id, study_id, number, attempt)
    SELECT trial_id, %(study)s, number, 0 FROM trial WHERE state = 'WAITING' RETURNING number
), begun AS (
    INSERT INTO tuner.attempt (trial_id, attempt, worker_id, started_at)
    SELECT trial_id, attempt, worker_id, counted_from FROM taken
    UNION ALL SELECT trial_id, attempt, worker_id, counted_from FROM started
), joined AS (
    UPDATE tuner.lease SET {SETTLED}, shared = slot.trials FROM slot
    WHERE lease.worker_id = %(worker)s AND lease.stack = slot.stack AND {OPEN} AND slot.trials > slot.before
), finished AS (
    UPDATE tuner.study SET state = 'finished', ended_at = clock_timestamp() FROM spent
    WHERE study.study_id = spent.study_id
        AND spent.open = 0 AND (spent.state = 'stopping' OR (spent.state = 'running' AND NOT spent.affordable))
    RETURNING study.state
), claimed AS (
    SELECT * FROM answered UNION ALL SELECT * FROM taken UNION ALL SELECT * FROM started
), died AS (  -- what `lost` has just written is not seen here
    SELECT attempt.trial_id, attempt.attempt, attempt.worker_id, attempt.ended, attempt.reason
    FROM claimed JOIN tuner.attempt USING (trial_id) LEFT JOIN free USING (trial_id)
    WHERE attempt.attempt > claimed.forgiven AND attempt.attempt < claimed.attempt
        AND (attempt.ended IN {_DEATHS} OR (attempt.ended IS NULL AND free.died))
)
SELECT coalesce(finished.state, spent.state) AS state, spent.reason, spent.open,
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
    supply.next, spent.numbers - (supply.next - spent.next) AS numbers, spent.open + spent.room AS to_train,
    supply.waiting, {_SLOTS} AS slots
FROM spent LEFT JOIN finished ON true LEFT JOIN claimed ON true CROSS JOIN LATERAL (
    SELECT greatest(spent.next, (SELECT max(number) + 1 FROM fresh)) AS next, ARRAY(
        {_WAITING} AND trial_id NOT IN (SELECT trial_id FROM free)
        UNION ALL SELECT number FROM skipped ORDER BY number
    ) AS waiting
) AS supply
ORDER BY claimed.number"""
