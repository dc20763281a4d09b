"""A record of every attempt; the pulse of the database; what finished trials spent, so that a claim need not add it up.

A claim then costs the same in a study of 5,000 trials as in an empty one.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

CHANGES = """
ALTER TABLE tuner.study RENAME COLUMN finished_trials TO last_finish_seq;
ALTER TABLE tuner.study
    ADD finished_epochs  bigint NOT NULL DEFAULT 0,             -- trained by trials that have ended
    ADD finished_seconds double precision NOT NULL DEFAULT 0,   -- of their training
    ADD failures         int NOT NULL DEFAULT 0,                -- crashed or timed out since it was started or resumed
    ADD reason           text;                                  -- why it was paused, where no person did it
UPDATE tuner.study SET finished_epochs = ended.epochs, finished_seconds = ended.seconds
FROM (
    SELECT study_id, sum(epoch) AS epochs, sum(seconds) AS seconds FROM tuner.lease
    WHERE outcome IS NOT NULL GROUP BY study_id
) AS ended
WHERE ended.study_id = study.study_id;

ALTER TABLE tuner.worker
    ADD lease   interval NOT NULL DEFAULT '30 seconds',         -- so long its trials are held without a sign of it
    ADD studies int[],                                          -- that it serves; null: all that run
    ADD reason  text;                                           -- why it ended, where something was wrong

ALTER TABLE tuner.lease ADD forgiven int NOT NULL DEFAULT 0;    -- deaths up to this attempt do not count any more

CREATE TABLE tuner.attempt (                                    -- each start of a trial
    trial_id   int NOT NULL REFERENCES tuner.lease (trial_id) ON DELETE CASCADE,
    attempt    int NOT NULL,
    worker_id  uuid REFERENCES tuner.worker (worker_id) ON DELETE SET NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    ended      text,                            -- an outcome, given_back, lost or cut_off; null: it goes on
    reason     text,
    PRIMARY KEY (trial_id, attempt)
);
INSERT INTO tuner.attempt (trial_id, attempt, worker_id, started_at, ended_at, ended, reason)
SELECT trial_id, attempt, worker_id, coalesce(started_at, now()),
    CASE WHEN lease_until IS NULL THEN now() END,
    CASE WHEN lease_until IS NULL THEN coalesce(outcome, 'given_back') END, reason
FROM tuner.lease;

CREATE TABLE tuner.pulse (                                      -- one row: since when workers reach the database
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    last  timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO tuner.pulse DEFAULT VALUES;
"""


def upgrade() -> None:
    op.execute(CHANGES)
