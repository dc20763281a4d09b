"""The first tables."""

from alembic import op

revision = "0001"
down_revision = None

# Towards Optuna's tables always ON DELETE CASCADE: with a plain foreign key its delete_study returns without an
# error and deletes nothing.
TABLES = """
CREATE TABLE tuner.study (
    study_id        int PRIMARY KEY REFERENCES public.studies (study_id) ON DELETE CASCADE,
    folder          uuid NOT NULL DEFAULT gen_random_uuid(),  -- of its files: ids repeat in another database
    document        jsonb NOT NULL,                     -- the study file, defaults filled in
    budget          jsonb NOT NULL,
    epochs          int NOT NULL,
    state           text NOT NULL DEFAULT 'running',
    finished_trials int NOT NULL DEFAULT 0,             -- hands out lease.finish_seq
    versions        jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz
);

CREATE TABLE tuner.worker (
    worker_id  uuid PRIMARY KEY,
    host       text NOT NULL,
    pid        int NOT NULL,
    device     text NOT NULL,
    slots      int NOT NULL,
    version    text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    last_seen  timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);

CREATE TABLE tuner.lease (
    trial_id    int PRIMARY KEY REFERENCES public.trials (trial_id) ON DELETE CASCADE,
    study_id    int NOT NULL REFERENCES tuner.study (study_id) ON DELETE CASCADE,
    number      int NOT NULL,
    worker_id   uuid REFERENCES tuner.worker (worker_id) ON DELETE SET NULL,
    request     uuid,                                   -- makes a claim that is sent twice one claim
    attempt     int NOT NULL DEFAULT 1,                 -- the fencing token
    deaths      int NOT NULL DEFAULT 0,
    lease_until timestamptz,                            -- null: nobody holds it
    epoch       int NOT NULL DEFAULT 0,                 -- epochs trained and reported
    checkpoint  text,                                   -- path below the artifacts folder
    started_at  timestamptz,
    seconds     double precision NOT NULL DEFAULT 0,    -- training time of ended attempts
    outcome     text,
    reason      text,
    finish_seq  int,
    UNIQUE (study_id, number),
    UNIQUE (study_id, finish_seq)
);
CREATE INDEX lease_open ON tuner.lease (study_id, lease_until) WHERE outcome IS NULL;
CREATE INDEX lease_held ON tuner.lease (worker_id) WHERE outcome IS NULL;

CREATE TABLE tuner.comparison (
    comparison_id serial PRIMARY KEY,
    name          text UNIQUE NOT NULL,
    document      jsonb NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tuner.comparison_study (
    comparison_id int NOT NULL REFERENCES tuner.comparison (comparison_id) ON DELETE CASCADE,
    study_id      int NOT NULL REFERENCES tuner.study (study_id) ON DELETE CASCADE,
    method        text NOT NULL,
    seed          int NOT NULL,
    PRIMARY KEY (comparison_id, study_id)
);
CREATE INDEX comparison_study_study ON tuner.comparison_study (study_id);

CREATE TABLE tuner.evaluation (                         -- each opening of the held-out test part
    evaluation_id serial PRIMARY KEY,
    study_id      int NOT NULL REFERENCES tuner.study (study_id) ON DELETE CASCADE,
    number        int NOT NULL,
    opened_at     timestamptz NOT NULL DEFAULT now(),
    scores        jsonb NOT NULL
);
CREATE INDEX evaluation_study ON tuner.evaluation (study_id);
"""


def upgrade() -> None:
    op.execute(TABLES)
