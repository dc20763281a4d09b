"""The one way in which tuner talks to PostgreSQL: SQL with named values, named tuples back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, TypeAlias
from uuid import UUID

import psycopg2
import psycopg2.extensions
from psycopg2.extras import Json, NamedTupleCursor, register_uuid

from tuner.errors import DatabaseError, DatabaseLost
from tuner.storage.url import Address, parse

Row: TypeAlias = Any  # a named tuple, a field for each column

OLDEST_SERVER = 130_000  # PostgreSQL 13

# libpq tells why a connection was refused in words only. Another try may mend what stands first, and all that is not
# here: a server that is down, starting or out of reach.
NO_CONNECTION_LEFT = r"too many clients|too many connections|remaining connection slots"
HOPELESS = {
    r"password authentication failed": "the password of user {user} was refused (set PGPASSWORD or ~/.pgpass)",
    r"no password supplied": "a password is needed for user {user} (set PGPASSWORD or ~/.pgpass)",
    r"no pg_hba.conf entry": "the server does not let user {user} in from this machine (pg_hba.conf)",
    r"authentication failed": "the server does not let user {user} in",
    r'role ".*" does not exist': "there is no user {user} on that server",
    r'database ".*" does not exist': "there is no database {database}; create it, or name another in the URL",
    r"permission denied for database": "user {user} may not connect to database {database}",
    r"invalid (connection option|integer value|\w+ value)|certificate|definition of service": "{message}",
}

# SQLSTATE: broken connections, shutdown, no connection left, deadlock, serialization failure
LOST = ("08", "57P01", "57P02", "57P03", "53300", "40P01", "40001")
READ_ONLY = "25006"
NO_SPACE = "53100"
NOT_ALLOWED = "42501"
NO_TABLE = ("42P01", "3F000")  # undefined table, undefined schema


class Database:
    """One connection, made when first needed and made again after it broke. For one thread.

    Each call of `execute` is a transaction of its own, READ COMMITTED, with UTC as the time zone.
    """

    def __init__(self, url: str, *, application: str = "tuner") -> None:
        self.address: Address = parse(url)
        self._application = application
        self._connection: psycopg2.extensions.connection | None = None

    def __repr__(self) -> str:
        return f"Database({self.address.hidden!r})"

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def execute(self, statement: str, **values: Any) -> list[Row]:
        """Sends SQL with `%(name)s` for values and returns the rows of its last statement.

        Several statements separated by `;` are one round trip and one transaction. A dict becomes JSON, where NaN
        and infinities become null; JSON comes back parsed. With values, a literal % is written %%.

        Raises DatabaseLost where another try may help: the connection broke (what was sent may have been committed)
        or the server had to roll back. Raises DatabaseError where the server refused, `__cause__` being psycopg2's
        own error. Faulty SQL escapes as psycopg2's ProgrammingError: a bug.
        """
        connection = self._connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, {name: _adapt(value) for name, value in values.items()} or None)
                return cursor.fetchall() if cursor.description is not None else []
        except psycopg2.Error as error:
            raise self._explain(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction over several calls; rolled back where the block raises."""
        self.execute("BEGIN")
        try:
            yield
        except BaseException:
            if self._connection is not None:  # not lost: a new connection has nothing to roll back
                with suppress(DatabaseError):
                    self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def _connect(self) -> psycopg2.extensions.connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        opened = _open(self.address, self._application)
        if isinstance(opened, str):
            raise self._refused(opened)
        connection = opened
        connection.autocommit = True
        register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]
        if connection.server_version < OLDEST_SERVER:
            version = connection.server_version // 10_000
            connection.close()
            oldest = OLDEST_SERVER // 10_000
            raise DatabaseError(
                f"PostgreSQL at {self.address.place} is version {version}; tuner needs {oldest} or newer"
            )
        self._connection = connection
        return connection

    def _refused(self, message: str) -> DatabaseError:
        place = self.address.place
        words = {
            "user": self.address.user or "(the default)",
            "database": self.address.database or "(the default)",
            "message": " ".join(message.split()),
        }
        if re.search(NO_CONNECTION_LEFT, message):
            return DatabaseLost(f"cannot connect to PostgreSQL at {place}: it has no free connection left")
        for sign, meaning in HOPELESS.items():
            if re.search(sign, message):
                return DatabaseError(f"cannot connect to PostgreSQL at {place}: {meaning.format(**words)}")
        reason = next((line for line in message.splitlines() if line.strip()), "no answer").strip()
        return DatabaseLost(f"cannot connect to PostgreSQL at {place}: {reason.rpartition('failed: ')[2]}")

    def _explain(self, error: psycopg2.Error) -> Exception:
        place, code = self.address.place, error.pgcode or ""
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        # Errors of the server have a code. One without is libpq's own: the connection broke, though psycopg2 may say
        # that it is open (a server that ends by SIGQUIT, or crashes, sends a last warning).
        of_libpq = not code and type(error) in (psycopg2.OperationalError, psycopg2.DatabaseError)
        if self._connection is None or self._connection.closed or of_libpq:
            self.close()
            return DatabaseLost(f"the connection to PostgreSQL at {place} broke: {line}")
        if code.startswith(LOST):
            return DatabaseLost(f"PostgreSQL at {place}: {line}")
        if code == READ_ONLY and len(self.address.hosts) > 1:  # it was the primary: another one is by now, or soon
            self.close()
            return DatabaseLost(f"PostgreSQL at {place} has become read-only: {line}")
        if code == READ_ONLY:
            return DatabaseError(f"PostgreSQL at {place} is read-only (a standby, or set so): {line}")
        if code == NO_SPACE:
            return DatabaseLost(f"the disk of PostgreSQL at {place} is full: {line}")
        if code == NOT_ALLOWED:
            return DatabaseError(f"PostgreSQL at {place}, user {self.address.user or '(the default)'}: {line}")
        if code in NO_TABLE:
            return DatabaseError(f"the database at {place} lacks tuner's tables ({line}); run: tuner db upgrade")
        if isinstance(error, psycopg2.ProgrammingError):
            return error
        return DatabaseError(f"PostgreSQL at {place}: {line}")


def _open(address: Address, application: str) -> psycopg2.extensions.connection | str:
    """A connection, or why there is none: no frame that holds the password becomes part of a traceback."""
    arguments: dict[str, Any] = address.connect_arguments(application)
    try:
        connection: psycopg2.extensions.connection = psycopg2.connect(cursor_factory=NamedTupleCursor, **arguments)
    except (psycopg2.Error, UnicodeError) as error:
        return str(error)
    return connection


def _adapt(value: Any) -> Any:
    """What psycopg2 would not take, or would take wrongly (it writes the repr of numpy's floats into the SQL)."""
    if isinstance(value, Mapping):
        return Json(_finite(value), dumps=_dumps)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, float):
        return float(value)
    return value


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
