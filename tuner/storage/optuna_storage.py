"""The one module that makes Optuna's RDBStorage: for reading, for samplers and pruners, for the dashboard.

Claims, reports and results are written by our own statements into the same tables (`tuner.storage.claims`).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tuner.errors import DatabaseError, NotFound
from tuner.settings import read_settings
from tuner.storage import open_database
from tuner.storage.url import DRIVER, normalise, parse

if TYPE_CHECKING:
    import optuna

POOL_SIZE = 1  # connections kept: many workers share a server
MAX_OVERFLOW = 3  # more while several threads read, as the dashboard's do


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
    """Optuna's storage over a database whose tables exist, with its cache of finished trials; one for each process."""
    import optuna

    arguments = engine_arguments(url)
    with _optunas_errors(url):
        storage = optuna.storages.RDBStorage(
            arguments.pop("url"),
            engine_kwargs={
                **arguments,
                "pool_size": POOL_SIZE,
                "max_overflow": MAX_OVERFLOW,
                "pool_pre_ping": True,
            },
            skip_table_creation=True,
        )
    return optuna.storages.get_storage(storage)


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
        optuna.storages.RDBStorage(
            arguments.pop("url"), engine_kwargs={**arguments, "poolclass": sqlalchemy.NullPool}
        ).remove_session()


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
