"""Studies as Optuna shows them, read by our storage."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tuner.errors import NotFound
from tuner.settings import read_settings
from tuner.storage import open_database

if TYPE_CHECKING:
    import optuna


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
