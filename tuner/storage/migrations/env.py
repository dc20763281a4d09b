"""Alembic's entry point; `tuner.storage.schema` gives the connection and commits."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="tuner",
)
with context.begin_transaction():
    context.run_migrations()
