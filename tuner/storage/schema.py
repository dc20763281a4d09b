"""Making and upgrading the tables: Optuna's in `public`, by Optuna itself; ours in `tuner`, by alembic.

Forty workers that start at once on an empty database are the usual case: one makes the tables under an advisory
lock, the others wait for it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tuner.errors import DatabaseError
from tuner.storage.connection import NO_TABLE, Database

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_LOCK = 0x74756E6572  # "tuner", for pg_advisory_lock


@cache
def revisions() -> tuple[str, ...]:
    """All that this version of tuner knows, oldest first; read off the file names, for importing alembic is slow."""
    return tuple(sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))


def ensure_schema(url: str) -> None:
    """Makes or upgrades the tables; one statement where they are current.

    Raises DatabaseError where they were made by a newer tuner, or by an Optuna of another schema.
    """
    with Database(url, application="tuner schema") as db:
        if _is_current(db):
            return
        db.execute("SELECT pg_advisory_lock(%(lock)s)", lock=SCHEMA_LOCK)  # let go when the connection closes
        if not _is_current(db):
            _migrate(db, url)


def upgrade_schema(url: str) -> None:
    """As `ensure_schema`, and upgrades Optuna's tables too, on which programs with an older Optuna may rely."""
    from tuner.storage.optuna_tables import upgrade_optuna

    with Database(url, application="tuner schema") as db:
        db.execute("SELECT pg_advisory_lock(%(lock)s)", lock=SCHEMA_LOCK)
        current = _is_current(db)
        upgrade_optuna(url)
        if not current:
            _migrate(db, url)


def check_schema(db: Database) -> None:
    """Raises DatabaseError where the tables are not those of this version of tuner."""
    if not _is_current(db):
        raise DatabaseError(f"the tables at {db.address.place} are missing or older; run: tuner db upgrade")


def _is_current(db: Database) -> bool:
    revision = _revision(db)
    if revision is not None and revision not in revisions():
        raise DatabaseError(
            f"the tables at {db.address.place} were made by a newer tuner (revision {revision}); upgrade tuner here"
        )
    return revision == revisions()[-1]


def _revision(db: Database) -> str | None:
    try:
        rows = db.execute("SELECT version_num FROM tuner.alembic_version")
    except DatabaseError as error:
        if getattr(error.__cause__, "pgcode", None) in NO_TABLE:
            return None
        raise
    return str(rows[0].version_num) if rows else None


def _migrate(db: Database, url: str) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    from tuner.storage.optuna_tables import create_optuna_tables, engine_arguments

    create_optuna_tables(url)
    # A user called tuner would otherwise, by "$user" in the search path, have Optuna look for its tables in our schema.
    db.execute(
        "DO $$ BEGIN IF current_user = 'tuner' THEN EXECUTE format("
        "'ALTER ROLE tuner IN DATABASE %I SET search_path = public', current_database()); END IF; END $$"
    )
    engine = sqlalchemy.create_engine(**engine_arguments(url), poolclass=sqlalchemy.NullPool)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE SCHEMA IF NOT EXISTS tuner"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except sqlalchemy.exc.DBAPIError as error:
        line = str(error.orig).strip().partition("\n")[0]
        raise DatabaseError(f"cannot make the tables at {db.address.place}: {line}") from error
