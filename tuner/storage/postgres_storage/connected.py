"""The connection under PostgresStorage: shared by threads, made anew in forked processes, patient when lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.storages import BaseStorage

from tuner.storage.connection import Database, Row
from tuner.storage.retry import until_answered


class ConnectedStorage(BaseStorage):
    def __init__(self, url: str) -> None:
        self._url = url
        self._begin()

    def _begin(self) -> None:
        """Begins with nothing in memory and no connection: when made, when unpickled, and in a forked process."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._db = Database(self._url, application="tuner storage")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._db.address.hidden!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._url = state["url"]
        self._begin()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time. A forked process begins anew; what was in memory is its parent's to go on with."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            yield

    def _send(self, statement: str, **values: Any) -> tuple[list[Row], bool]:
        """The rows, and whether an earlier try of the same may have been committed, its answer lost."""
        tries = 0

        def send() -> list[Row]:
            nonlocal tries
            tries += 1
            return self._db.execute(statement, **values)

        with self._alone():
            rows = until_answered(send)
        return rows, tries > 1

    def _rows(self, statement: str, **values: Any) -> list[Row]:
        return self._send(statement, **values)[0]
