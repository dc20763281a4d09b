"""Optuna's side of the database: its tables, made by its own RDBStorage, and its studies, read by our storage."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import DatabaseError, NotFound
from tuner.settings import read_settings
from tuner.storage import open_database
from tuner.storage.connection import Database
from tuner.storage.url import DRIVER, normalise, parse

if TYPE_CHECKING:
    import optuna


def engine_arguments(url: str) -> dict[str, Any]:
    """For `sqlalchemy.create_engine`; psycopg2 gets the address itself, so no URL with a password stands anywhere."""
    return {
        "url": f"{DRIVER}://",
        "connect_args": parse(url).connect_arguments("tuner"),
        "isolation_level": "READ COMMITTED",
        "hide_parameters": True,
    }


@functools.cache
def optuna_storage(url: str) -> optuna.storages.BaseStorage:
    """The storage of Optuna's studies in a database; one for each process."""
    from tuner.storage.postgres_storage import PostgresStorage

    return PostgresStorage(url)


def load_study(name: str, database_url: str | None = None) -> optuna.Study:
    """The study as Optuna shows it, for notebooks; by default from the database that the command line would use.

    Raises NotFound.
    """
    import optuna

    url = open_database(read_settings()) if database_url is None else database_url
    try:
        return optuna.load_study(study_name=name, storage=optuna_storage(url))
    except KeyError:
        raise NotFound(f"no study {name!r}; `tuner study list` shows those that exist") from None


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
