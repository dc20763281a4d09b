"""The statements behind `studies`, each one message to the server."""

from tuner.storage.statement_parts import CANCELLED_REASON, LOST_REASON, SECONDS_HELD, UTC_NOW

# An optuna.Study is its rows in `studies` and `study_directions`.
CREATE = """
WITH made AS (
    INSERT INTO public.studies (study_name) VALUES (%(name)s) ON CONFLICT (study_name) DO NOTHING RETURNING study_id
), direction AS (
    INSERT INTO public.study_directions (study_id, objective, direction)
    SELECT study_id, 0, %(direction)s::public.studydirection FROM made
)
INSERT INTO tuner.study (study_id, document, budget, epochs, engine, versions)
SELECT study_id, %(document)s, %(budget)s, %(epochs)s, %(engine)s, %(versions)s FROM made
RETURNING study_id"""

_RECORD = """studies.study_name, study.*,
    EXISTS (SELECT FROM tuner.comparison_study WHERE comparison_study.study_id = study.study_id) AS compared"""

GET = f"""
SELECT {_RECORD} FROM public.studies JOIN tuner.study USING (study_id)
WHERE studies.study_name = %(name)s"""

RUNNING = f"""
SELECT {_RECORD} FROM public.studies JOIN tuner.study USING (study_id)
WHERE study.state IN ('running', 'stopping') OR study.state = 'cancelled'
    AND EXISTS (
        SELECT FROM tuner.lease WHERE lease.study_id = study.study_id AND lease.outcome IS NULL AND lease.attempt > 0
    )
ORDER BY study_id"""

NAMES = "SELECT study_name FROM public.studies JOIN tuner.study USING (study_id) ORDER BY study_id"

LIST = f"""
SELECT study.study_id, studies.study_name, study.state, study.reason, study.budget, study.created_at, study.ended_at,
    study.document #>> '{{objective,metric}}' AS metric,
    (SELECT jsonb_object_agg(counted.state, counted.n) FROM (
        SELECT trials.state::text, count(*) AS n FROM public.trials LEFT JOIN tuner.lease USING (trial_id)
        WHERE trials.study_id = study.study_id AND lease.attempt IS DISTINCT FROM 0 GROUP BY 1
    ) AS counted) AS trials,
    best.value AS best_value, best.number AS best_number, spent.*
FROM tuner.study JOIN public.studies USING (study_id)
JOIN public.study_directions ON study_directions.study_id = study.study_id AND study_directions.objective = 0
CROSS JOIN LATERAL (
    SELECT count(DISTINCT lease.worker_id) FILTER (WHERE lease.lease_until > clock_timestamp()) AS workers,
        study.finished_epochs + coalesce(sum(lease.epoch), 0) AS epochs,
        study.finished_seconds + coalesce(sum(lease.seconds + {SECONDS_HELD}), 0) AS seconds
    FROM tuner.lease WHERE lease.study_id = study.study_id AND lease.outcome IS NULL
) AS spent
LEFT JOIN LATERAL (
    SELECT trial_values.value, trials.number
    FROM public.trials JOIN public.trial_values USING (trial_id)
    WHERE trials.study_id = study.study_id AND trials.state = 'COMPLETE' AND trial_values.objective = 0
    ORDER BY CASE study_directions.direction WHEN 'MAXIMIZE' THEN -trial_values.value ELSE trial_values.value END,
        trials.number
    LIMIT 1
) AS best ON true
ORDER BY study.created_at, study.study_id"""

# The first decides for all that are compared with it. Locked in one order, so that two deciders wait for each other.
_COMPARED = """SELECT %(study)s UNION
    SELECT other.study_id FROM tuner.comparison_study AS mine JOIN tuner.comparison_study AS other USING (comparison_id)
    WHERE mine.study_id = %(study)s"""
SETTLE_ENGINE = f"""
SELECT FROM tuner.study WHERE study_id IN ({_COMPARED}) ORDER BY study_id FOR UPDATE;
UPDATE tuner.study SET engine = coalesce(
    (SELECT engine FROM tuner.study WHERE study_id IN ({_COMPARED}) AND engine IS NOT NULL ORDER BY study_id LIMIT 1),
    %(engine)s)
WHERE study_id IN ({_COMPARED}) AND engine IS NULL;
SELECT engine FROM tuner.study WHERE study_id = %(study)s"""

SET_BUDGET = """
UPDATE tuner.study SET budget = %(budget)s, document = document || jsonb_build_object('budget', %(budget)s::jsonb)
WHERE study_id = %(study)s"""

# A study that is started or resumed has its failures counted anew.
SET_STATE = """
UPDATE tuner.study SET state = %(state)s, ended_at = CASE WHEN %(ended)s THEN clock_timestamp() END, reason = NULL,
    failures = CASE WHEN %(state)s = 'running' THEN 0 ELSE failures END
WHERE study_id = %(study)s"""

OUTCOMES = "SELECT number, outcome FROM tuner.lease WHERE study_id = %(study)s"

# Trials that nobody holds are ended with the study; workers end those that they hold. What was skipped has not begun,
# and is there for a study resumed.
CANCEL_FREE = f"""
WITH free AS (
    SELECT trial_id, row_number() OVER (ORDER BY number) AS place FROM tuner.lease
    WHERE study_id = %(study)s AND outcome IS NULL AND attempt > 0
        AND (lease_until IS NULL OR lease_until < clock_timestamp())
), ended AS (
    UPDATE tuner.lease SET outcome = 'cancelled', reason = '{CANCELLED_REASON}',
        seconds = lease.seconds + {SECONDS_HELD}, lease_until = NULL, finish_seq = study.last_finish_seq + free.place
    FROM tuner.study, free WHERE study.study_id = %(study)s AND lease.trial_id = free.trial_id
    RETURNING lease.trial_id, lease.epoch, lease.seconds
), closed AS (
    UPDATE tuner.attempt SET ended = 'lost', ended_at = clock_timestamp(), reason = '{LOST_REASON}'
    FROM ended WHERE attempt.trial_id = ended.trial_id AND attempt.ended IS NULL
), counted AS (
    UPDATE tuner.study SET last_finish_seq = last_finish_seq + (SELECT count(*) FROM ended),
        finished_epochs = finished_epochs + (SELECT coalesce(sum(epoch), 0) FROM ended),
        finished_seconds = finished_seconds + (SELECT coalesce(sum(seconds), 0) FROM ended)
    WHERE study_id = %(study)s
), shown AS (
    INSERT INTO public.trial_user_attributes (trial_id, key, value_json)
    SELECT trial_id, 'outcome', '"cancelled"' FROM ended
    ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
)
UPDATE public.trials SET state = 'FAIL', datetime_complete = {UTC_NOW}
FROM ended WHERE trials.trial_id = ended.trial_id"""

# Optuna's tables do not cascade among each other: its own delete_study walks them object by object.
_TRIAL_TABLES = (
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_heartbeats",
)
_STUDY_TABLES = ("trials", "study_user_attributes", "study_system_attributes", "study_directions", "studies")

# The study's row goes first and waits for claims that hold it; leases go with it.
DELETE = ";".join(
    [
        "DELETE FROM tuner.study WHERE study_id = %(study)s",
        *(
            f"DELETE FROM public.{table} USING public.trials "
            f"WHERE trials.trial_id = {table}.trial_id AND trials.study_id = %(study)s"
            for table in _TRIAL_TABLES
        ),
        *(f"DELETE FROM public.{table} WHERE study_id = %(study)s" for table in _STUDY_TABLES),
    ]
)
