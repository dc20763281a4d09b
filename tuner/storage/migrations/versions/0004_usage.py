"""What a worker makes of its machine, as it saw it last."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("ALTER TABLE tuner.worker ADD usage jsonb")  # as tuner.storage.workers.Usage has it; null: not known yet
