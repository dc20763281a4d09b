"""Studies, trials and workers in PostgreSQL; checkpoints and logs in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.settings import Settings

__all__ = ["PostgresStorage", "open_database"]


def __getattr__(name: str) -> Any:
    """PostgresStorage is imported when asked for: most who import this package need no optuna."""
    if name == "PostgresStorage":
        from tuner.storage.postgres_storage import PostgresStorage

        return PostgresStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_database(settings: Settings, option: str | None = None) -> str:
    """The URL to use, its tables in place: `--database`, else TUNER_DATABASE_URL, else the embedded server, started.

    Raises InvalidInput for a URL that cannot be used or an option with a password, DatabaseError for a server that
    cannot.
    """
    from tuner.storage.schema import ensure_schema
    from tuner.storage.server import EmbeddedServer
    from tuner.storage.url import normalise, refuse_password

    if option:
        refuse_password(option)
    given = option or settings.database_url
    url = normalise(given) if given else EmbeddedServer(settings.server).start()
    ensure_schema(url)
    return url
