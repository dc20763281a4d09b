"""Optuna's tables: made, upgraded and told apart by its own RDBStorage."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.errors import DatabaseError
from tuner.storage.connection import Database
from tuner.storage.url import DRIVER, normalise, parse


def engine_arguments(url: str) -> dict[str, Any]:
    """For `sqlalchemy.create_engine`; psycopg2 gets the address itself, so no URL with a password stands anywhere."""
    return {
        "url": f"{DRIVER}://",
        "connect_args": parse(url).connect_arguments("tuner"),
        "isolation_level": "READ COMMITTED",
        "hide_parameters": True,
    }


def create_optuna_tables(url: str) -> None:
    """Makes what is missing of Optuna's tables. Not safe in a race: the caller holds the schema's lock."""
    import optuna
    import sqlalchemy

    arguments = engine_arguments(url)
    with _optunas_errors(url):
        storage = optuna.storages.RDBStorage(
            arguments.pop("url"), engine_kwargs={**arguments, "poolclass": sqlalchemy.StaticPool}
        )
        storage.remove_session()
        storage.engine.dispose()


def upgrade_optuna(url: str) -> None:
    """Brings Optuna's tables to the schema of the installed Optuna."""
    import optuna
    import sqlalchemy

    # Its migrations open a connection of their own and know nothing but the URL.
    with _optunas_errors(url):
        storage = optuna.storages.RDBStorage(
            normalise(url),
            engine_kwargs={"poolclass": sqlalchemy.NullPool, "hide_parameters": True},
            skip_compatibility_check=True,
        )
        storage.upgrade()
        storage.remove_session()


def check_optuna_tables(db: Database) -> None:
    """Raises DatabaseError where Optuna's tables are not those of the installed Optuna."""
    (found,) = db.execute("SELECT version_num FROM public.alembic_version")
    if found.version_num != _optuna_revision():
        raise DatabaseError(
            f"Optuna's tables at {db.address.place} are of another version ({found.version_num}; the installed Optuna "
            f"has {_optuna_revision()}); run: tuner db upgrade"
        )


@functools.cache
def _optuna_revision() -> str:
    """Of Optuna's newest migration, read off the file names: RDBStorage takes a second and 20 statements to tell."""
    import optuna

    migrations = Path(optuna.__file__).parent / "storages" / "_rdb" / "alembic" / "versions"
    return max(path.stem.rstrip("_") for path in migrations.glob("v*.py"))


@contextmanager
def _optunas_errors(url: str) -> Iterator[None]:
    import optuna
    import sqlalchemy

    place = parse(url).place
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's own: experimental parts, alembic's settings
            yield
    except sqlalchemy.exc.DBAPIError as error:
        raise DatabaseError(f"PostgreSQL at {place}: {_line(error.orig)}") from error
    except optuna.exceptions.StorageInternalError as error:
        raise DatabaseError(f"PostgreSQL at {place}: {_line(error.__cause__ or error)}") from error
    except RuntimeError as error:  # its check of the schema's version
        raise DatabaseError(
            f"Optuna's tables at {place} are of another version ({error}); run: tuner db upgrade"
        ) from None


def _line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]
