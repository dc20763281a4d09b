"""Trials that are trained together: by which engine a study is trained, and what a trial pays in company."""

from alembic import op

revision = "0003"
down_revision = "0002"

CHANGES = """
ALTER TABLE tuner.study ADD engine jsonb;   -- {"name", "members"}; null: the first worker that serves it will measure
UPDATE tuner.study SET engine = '{"name": "single", "members": 1}';

ALTER TABLE tuner.lease RENAME started_at TO counted_from;  -- up to there, `seconds` has them
ALTER TABLE tuner.lease
    ADD stack         uuid,                     -- the same for all that a worker trains together
    ADD shared        int NOT NULL DEFAULT 1,   -- so many are trained together, this one included
    ADD largest_stack int;                      -- so many may train together where it is among them; null: any number
UPDATE tuner.lease SET stack = request;

CREATE INDEX worker_open ON tuner.worker (worker_id) WHERE ended_at IS NULL;
"""


def upgrade() -> None:
    op.execute(CHANGES)
