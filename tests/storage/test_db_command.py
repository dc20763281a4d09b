"""`tuner db`, as a script and a person use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from tuner.cli.main import run
from tuner.storage.connection import Database
from tuner.storage.schema import check_schema


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert run(["db", "status", "--format", "json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_start_status_upgrade_stop(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = status(capsys)
    assert (before["running"], before["url"], before["embedded"]) == (False, None, True)
    assert list(home.iterdir()) == []  # asking changes nothing

    assert run(["db", "start"]) == 0
    url = capsys.readouterr().out.strip()
    now = status(capsys)
    assert (now["running"], now["url"]) == (True, url)
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM tuner.study")).scalar() == 0
    engine.dispose()

    assert run(["db", "upgrade"]) == 0
    with Database(url) as db:
        check_schema(db)
    assert run(["db", "stop"]) == 0
    assert status(capsys)["running"] is False
    assert run(["db", "stop"]) == 0


def test_a_server_of_ones_own_is_shown_without_its_password(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    password_server: Callable[[str | None], str],
) -> None:
    monkeypatch.setenv("TUNER_DATABASE_URL", password_server("right@1"))
    shown = status(capsys)
    assert (shown["running"], shown["embedded"], "right" in str(shown)) == (True, False, False)
    assert run(["db", "upgrade"]) == 0
    assert run(["db", "start"]) == 2
    monkeypatch.setenv("TUNER_DATABASE_URL", password_server("c4n4ry"))
    shown = status(capsys)
    assert shown["running"] is False
    assert "password of user ann was refused" in str(shown["problem"])
    assert run(["db", "upgrade"]) == 4
    assert "c4n4ry" not in str(shown) + "".join(capsys.readouterr())


def test_a_password_on_the_command_line_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["status"], ["upgrade"], ["start"]):
        assert run(["--database", "postgresql://ann:c4n4ry@127.0.0.1/lab", "db", *arguments]) == 2
        said = "".join(capsys.readouterr())
        assert "PGPASSWORD" in said
        assert "c4n4ry" not in said
    assert list(home.iterdir()) == []
