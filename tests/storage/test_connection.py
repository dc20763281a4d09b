from __future__ import annotations

import os
import re
import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import psycopg2
import pytest

from tuner.cli.main import run
from tuner.errors import DatabaseError, DatabaseLost
from tuner.states import StudyState
from tuner.storage import connection
from tuner.storage.connection import Database
from tuner.storage.server import EmbeddedServer
from tuner.storage.url import parse


def test_rows_are_named_and_values_come_back_as_they_went(db: Database) -> None:
    identity, nested = uuid4(), {"text": "it's", "list": [1, 2.5, None, {"ü": True}]}
    (row,) = db.execute(
        "SELECT %(i)s::uuid AS identity, %(d)s::jsonb AS nested, %(s)s AS state, %(f)s::float8 AS number, "
        "%(a)s::int[] AS list, now() AS now",
        i=identity,
        d=nested,
        s=StudyState.RUNNING,
        f=np.float64(0.1),
        a=[3, 1],
    )
    assert (row.identity, row.nested, row.state, row.number, row.list) == (identity, nested, "running", 0.1, [3, 1])
    assert row.now.utcoffset() == timedelta(0)


def test_not_a_number_is_stored_as_a_number_and_left_out_of_json(db: Database) -> None:
    (row,) = db.execute("SELECT %(x)s::float8 AS x, %(d)s::jsonb AS d", x=float("nan"), d={"a": [float("inf"), 1.0]})
    assert np.isnan(row.x)
    assert row.d == {"a": [None, 1.0]}


def test_several_statements_are_one_transaction(db: Database) -> None:
    insert = "INSERT INTO tuner.comparison (name, document) VALUES ('a', '{}')"
    with pytest.raises(DatabaseError):
        db.execute(f"{insert}; SELECT 1 / (SELECT 0)")
    assert db.execute("SELECT count(*) AS n FROM tuner.comparison")[0].n == 0
    assert db.execute(f"{insert}; SELECT 7 AS last")[0].last == 7
    assert db.execute("SELECT count(*) AS n FROM tuner.comparison")[0].n == 1


def test_a_transaction_over_several_calls_is_kept_or_dropped_whole(db: Database) -> None:
    def insert(*names: str, then: Exception | None = None) -> None:
        with db.transaction():
            for name in names:
                db.execute("INSERT INTO tuner.comparison (name, document) VALUES (%(name)s, '{}')", name=name)
            if then is not None:
                raise then

    with pytest.raises(KeyError):
        insert("dropped", then=KeyError())
    insert("one", "two")
    with pytest.raises(DatabaseError):
        insert("three", "one")
    names = [row.name for row in db.execute("SELECT name FROM tuner.comparison ORDER BY name")]
    assert names == ["one", "two"]


def test_the_session_is_utc_read_committed_and_named(database_url: str) -> None:
    with Database(database_url, application="tuner worker") as db:
        (row,) = db.execute(
            "SELECT current_setting('timezone') AS zone, current_setting('transaction_isolation') AS isolation, "
            "current_setting('application_name') AS name, current_setting('search_path') AS path"
        )
    assert tuple(row) == ("UTC", "read committed", "tuner worker", "public")


def test_a_broken_connection_is_said_and_made_anew(db: Database, database_url: str) -> None:
    pid = db.execute("SELECT pg_backend_pid() AS pid")[0].pid
    with Database(database_url) as other:
        other.execute("SELECT pg_terminate_backend(%(pid)s, 5000)", pid=pid)
    with pytest.raises(DatabaseLost, match="broke"):
        db.execute("SELECT 1")
    assert db.execute("SELECT pg_backend_pid() AS pid")[0].pid != pid


@pytest.mark.parametrize("end", [signal.SIGQUIT, signal.SIGKILL])  # pg_ctl stop -m immediate; a crash
def test_a_server_that_ends_at_once_is_lost_and_found_again(open_folder: Path, end: signal.Signals) -> None:
    server = EmbeddedServer(open_folder / "postgres", durable=False)
    with Database(server.start()) as db:
        db.execute("SELECT 1")
        pid = server.status().pid
        assert pid is not None
        os.kill(pid, end)
        with pytest.raises(DatabaseLost):
            db.execute("SELECT pg_sleep(10)")
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=20)
        server.start()
        assert db.execute("SELECT 1 AS one")[0].one == 1


def test_a_transaction_whose_connection_breaks_ends_with_the_loss(db: Database, database_url: str) -> None:
    def insert_and_break() -> None:
        with db.transaction():
            pid = db.execute("SELECT pg_backend_pid() AS pid")[0].pid
            db.execute("INSERT INTO tuner.comparison (name, document) VALUES ('x', '{}')")
            with Database(database_url) as other:
                other.execute("SELECT pg_terminate_backend(%(pid)s, 5000)", pid=pid)
            db.execute("INSERT INTO tuner.comparison (name, document) VALUES ('y', '{}')")

    with pytest.raises(DatabaseLost):
        insert_and_break()
    assert db.execute("SELECT name FROM tuner.comparison") == []


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("postgresql://ann:{secret}@127.0.0.1:1/lab", DatabaseLost, "127.0.0.1:1: Connection refused"),
        ("postgresql://ann:{secret}@no-such-host.invalid/lab", DatabaseLost, "no-such-host.invalid"),
        ("postgresql://ann:{secret}@/lab?host=/nowhere", DatabaseLost, "/nowhere: No such file"),
        ("postgresql://ann:{secret}@127.0.0.1:1/lab?nonsense=1", DatabaseError, "nonsense"),
        ("postgresql://ann:{secret}@127.0.0.1:1/lab?sslmode=nonsense", DatabaseError, "nonsense"),
        ("postgresql://ann:{secret}@127.0.0.1:1/lab?service=nonsense", DatabaseError, "nonsense"),
        ("postgresql://ann:{secret}@127.0.0.1:99999/lab", DatabaseLost, "99999"),
    ],
)
def test_where_no_server_is_one_line_says_so(url: str, error: type[DatabaseError], says: str) -> None:
    db = Database(url.format(secret="c4n4ry-s3cr3t"))
    with pytest.raises(error) as caught:
        db.execute("SELECT 1")
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "c4n4ry" not in message + repr(db) + shown


def test_refusals_of_a_server_are_one_line_each(database_url: str, db: Database) -> None:
    def refused(**changes: str) -> str:
        with pytest.raises(DatabaseError) as caught, Database(replace(parse(database_url), **changes).url) as other:
            other.execute("SELECT 1")
        assert not isinstance(caught.value, DatabaseLost)
        return str(caught.value)

    assert "there is no database nowhere" in refused(database="nowhere")
    assert "there is no user nobody-here" in refused(user="nobody-here")
    db.execute("CREATE ROLE poor LOGIN CONNECTION LIMIT 0")
    try:
        with pytest.raises(DatabaseLost, match="no free connection"):
            Database(replace(parse(database_url), user="poor").url).execute("SELECT 1")
        db.execute("ALTER ROLE poor CONNECTION LIMIT 5")
        with (
            Database(replace(parse(database_url), user="poor").url) as poor,
            pytest.raises(DatabaseError, match="poor"),
        ):
            poor.execute("SELECT * FROM tuner.study")
    finally:
        db.execute("DROP ROLE poor")
    db.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match="read-only"):
        db.execute("DELETE FROM tuner.study")


def test_faulty_sql_is_a_bug_and_escapes(db: Database) -> None:
    with pytest.raises(psycopg2.ProgrammingError):
        db.execute("SELEKT 1")


def test_missing_tables_name_the_command_that_makes_them(empty_database_url: str) -> None:
    with Database(empty_database_url) as db, pytest.raises(DatabaseError, match="tuner db upgrade"):
        db.execute("SELECT * FROM tuner.study")


def test_a_server_that_is_too_old_is_refused_in_one_line(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connection, "OLDEST_SERVER", 990_000)
    monkeypatch.setenv("TUNER_DATABASE_URL", database_url)
    assert run(["study", "list"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"tuner: PostgreSQL at \S+ is version \d+; tuner needs 99 or newer\n", err)


def test_wrong_and_missing_passwords_are_said_and_never_shown(
    password_server: Callable[[str | None], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "c4n4ry-wr0ng"
    with pytest.raises(DatabaseError, match="the password of user ann was refused") as caught:
        Database(password_server(wrong)).execute("SELECT 1")
    assert not isinstance(caught.value, DatabaseLost)
    assert wrong not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(DatabaseError, match="a password is needed for user ann"):
        Database(password_server(None)).execute("SELECT 1")
    assert Database(password_server("right@1")).execute("SELECT 1 AS one")[0].one == 1
    monkeypatch.setenv("PGPASSWORD", "right@1")
    assert Database(password_server(None)).execute("SELECT 1 AS one")[0].one == 1
