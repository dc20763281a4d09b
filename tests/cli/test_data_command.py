from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tuner.cli.context import Context
from tuner.cli.data import command
from tuner.errors import DataError, NotFound
from tuner.settings import read_settings


@pytest.fixture
def context(tmp_path: Path) -> Context:
    settings = read_settings({"TUNER_HOME": str(tmp_path / "home"), "TUNER_DATA": str(tmp_path / "data")})
    return Context(settings=settings, quiet=False, verbose=False, database=None)


def run(context: Context, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, obj=context, catch_exceptions=True)


def test_fetch_prepares_and_list_shows_it(context: Context) -> None:
    before = {row["name"]: row for row in json.loads(run(context, "list", "--format", "json").output)}
    assert set(before) == {"digits", "fashion_mnist", "etth1", "spiral"}
    assert not any(row["ready"] for row in before.values())
    fetched = run(context, "fetch", "digits")
    assert fetched.exit_code == 0
    assert (Path(fetched.output.strip()) / "train_inputs.npy").is_file()
    after = {row["name"]: row for row in json.loads(run(context, "list", "--format", "json").output)}
    assert after["digits"] == {
        "name": "digits",
        "task": "classification",
        "examples": 1797,
        "ready": True,
        "folder": fetched.output.strip(),
    }
    assert after["spiral"]["ready"] is False


def test_list_as_a_table(context: Context) -> None:
    lines = run(context, "list").output.splitlines()
    assert lines[0].split() == ["name", "task", "examples", "ready"]
    assert lines[3].split() == ["etth1", "forecast", "-", "no"]


def test_fetch_of_an_unknown_name_lists_the_known(context: Context) -> None:
    error = run(context, "fetch", "mnist").exception
    assert isinstance(error, NotFound)
    assert str(error) == "no data set 'mnist'; there are digits, fashion_mnist, etth1, spiral"


def test_fetch_of_a_damaged_file_names_it(context: Context) -> None:
    assert context.settings.data is not None
    path = context.settings.data / "etth1" / "ETTh1.csv"
    path.parent.mkdir(parents=True)
    path.write_text("date,OT\n")
    error = run(context, "fetch", "etth1").exception
    assert isinstance(error, DataError)
    assert str(path) in str(error)
