"""What statements about trials share: who holds a trial, what it has used, what a study has left of its budget.

Times are the server's own. A trial's lease row says whether it is held: `lease_until` is null where nobody holds it,
`outcome` is null until it has ended. Optuna's rows are written beside it, so that its dashboard and API read the same.
"""

from tuner.spec.search import MAX_TRIALS

CANCELLED_REASON = "the study was cancelled"
LOST_REASON = "its worker was not heard of any more"
CUT_OFF_REASON = "its worker was lost while no other reached the database"

LOCK = "SELECT 1 FROM tuner.study WHERE study_id = %(study)s FOR UPDATE;"

# Writes of an attempt go through only while it holds the trial, and no other program has ended that.
OPEN = "lease.outcome IS NULL AND lease.lease_until IS NOT NULL"
MINE = f"lease.trial_id = %(trial)s AND lease.attempt = %(attempt)s AND {OPEN}"
RUNS = "EXISTS (SELECT FROM public.trials WHERE trials.trial_id = lease.trial_id AND trials.state = 'RUNNING')"
FENCE = f"{MINE} AND {RUNS}"

# Each worker has a lease of its own length.
_LEASE = "(SELECT lease FROM tuner.worker WHERE worker.worker_id = lease.worker_id)"
RENEWED = f"clock_timestamp() + {_LEASE}"

# Of the attempt that holds a trial: until now, or until the last sign of life of a worker that was lost. Trials that
# share a slot share its seconds: what they have used is settled whenever one comes or goes.
SECONDS_HELD = f"""CASE WHEN lease.lease_until IS NULL THEN 0 ELSE greatest(0, extract(epoch FROM
    CASE WHEN lease.lease_until > clock_timestamp() THEN clock_timestamp() ELSE lease.lease_until - {_LEASE} END
    - lease.counted_from))::float8 / lease.shared END"""
SETTLED = f"seconds = lease.seconds + {SECONDS_HELD}, counted_from = clock_timestamp()"
LEFT_BEHIND = f"""left_behind AS (
    UPDATE tuner.lease SET {SETTLED}, shared = held.shared - 1 FROM held
    WHERE held.shared > 1 AND lease.worker_id = held.worker_id AND lease.stack = held.stack
        AND lease.trial_id <> held.trial_id AND {OPEN}
)"""

UTC_NOW = "clock_timestamp() AT TIME ZONE 'utc'"  # Optuna keeps naive times in UTC

# What a study has used of its budget, and what that leaves. Ended trials were added up when they ended, so that this
# costs the same however many there are. Trials that were skipped have used nothing; they begin before new ones.
SPENT = f"""
SELECT study.study_id, study.state, study.reason, used.*, further.room, further.room > 0 AS affordable,
    used.skipped[least(further.room, cardinality(used.skipped))] AS last_skipped,  -- that may begin
    greatest(0, further.room - cardinality(used.skipped)) AS numbers
FROM tuner.study, LATERAL (
    SELECT leases.*, leases.next - cardinality(leases.skipped) AS trials,
        study.finished_epochs + leases.open * study.epochs AS reserved_epochs
    FROM (
        SELECT coalesce((SELECT max(number) + 1 FROM tuner.lease WHERE study_id = study.study_id), 0) AS next,
            coalesce(array_agg(lease.number ORDER BY lease.number) FILTER (WHERE lease.attempt = 0), '{{}}') AS skipped,
            count(*) FILTER (WHERE lease.attempt > 0)::int AS open,
            study.finished_epochs + coalesce(sum(lease.epoch), 0)::bigint AS epochs,
            study.finished_seconds + coalesce(sum(lease.seconds + {SECONDS_HELD}), 0) AS seconds
        FROM tuner.lease WHERE lease.study_id = study.study_id AND lease.outcome IS NULL
    ) AS leases
) AS used, LATERAL (
    SELECT CASE WHEN used.seconds >= (study.budget ->> 'seconds')::float8 THEN 0 ELSE greatest(0, least(
        {MAX_TRIALS}, (study.budget ->> 'trials')::bigint - used.trials,
        ((study.budget ->> 'total_epochs')::bigint - used.reserved_epochs) / study.epochs
    ))::int END AS room
) AS further
WHERE study.study_id = %(study)s"""
