import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from tuner.cli.output import Column, clock, duration, emit, emit_one, format_option, plain, show, size


class State(StrEnum):
    RUNNING = "running"


ROWS = [
    {"name": "digits", "state": State.RUNNING, "trials": 7, "value": 0.981234, "seconds": 65, "hidden": [1, None]},
    {"name": "longer-name", "state": State.RUNNING, "trials": 40, "value": None, "seconds": 0.5, "hidden": []},
]


@click.command()
@format_option
def listing(format: str) -> None:
    emit(ROWS, ["name", "state", Column("trials", "done"), "value", "seconds"], format)


def output(*arguments: str) -> str:
    result = CliRunner().invoke(listing, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_piped_table_is_plain_aligned_columns() -> None:
    assert output().splitlines() == [
        "name         state    done   value   seconds",
        "digits       running     7  0.9812  1 m 05 s",
        "longer-name  running    40       -     0.5 s",
    ]


def test_scripts_get_whole_rows_and_numbers() -> None:
    rows = json.loads(output("--format", "json"))
    assert rows[0] == {
        "name": "digits",
        "state": "running",
        "trials": 7,
        "value": 0.981234,
        "seconds": 65,
        "hidden": [1, None],
    }
    assert rows[1]["value"] is None
    assert YAML(typ="safe").load(output("--format", "yaml")) == rows


def test_an_unknown_format_is_a_usage_error() -> None:
    assert CliRunner().invoke(listing, ["--format", "xml"]).exit_code == 2


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    for format, expected in (("table", "name  value\n"), ("json", "[]\n"), ("yaml", "[]\n")):
        emit([], ["name", "value"], format)
        assert capsys.readouterr().out == expected


def test_json_is_strict() -> None:
    document = {
        "nan": float("nan"),
        "best": float("-inf"),
        "at": datetime(2025, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        "naive": datetime(2025, 3, 1, 12),  # as Optuna stores them
        "took": timedelta(seconds=90),
        "where": Path("/data"),
        "params": {"learning_rate[sgd]": 0.1, "layers": (1, 2)},
    }
    assert plain(document) == {
        "nan": None,
        "best": None,
        "at": "2025-03-01T12:00:00+02:00",
        "naive": "2025-03-01T12:00:00+00:00",
        "took": 90.0,
        "where": "/data",
        "params": {"learning_rate[sgd]": 0.1, "layers": [1, 2]},
    }
    with pytest.raises(TypeError, match="set"):
        plain({"bad": {1}})


def test_yaml_keeps_strings_strings(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"study": "1e-3", "no": "no", "empty": "", "null": None, "text": "a: b\n# c", "umlaut": "ä"}
    emit_one(document, "yaml")
    assert YAML(typ="safe").load(io.StringIO(capsys.readouterr().out)) == document


def test_one_object_is_a_line_per_key(capsys: pytest.CaptureFixture[str]) -> None:
    emit_one({"study": "digits", "ended_at": None, "best": {"value": 0.5, "learning_rate": 1e-5}, "none": {}}, "table")
    assert capsys.readouterr().out.splitlines() == [
        "study     digits",
        "ended at  -",
        "best",
        "  value          0.5",
        "  learning_rate  1e-05",
        "none      -",
    ]


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (512, "512 B"), (14 * 2**20, "14 MiB"), (1000 * 2**20, "1.0 GiB"), (3e12, "2794.0 GiB")],
)
def test_sizes(amount: float, text: str) -> None:
    assert size(amount) == text


@pytest.mark.parametrize(
    ("hours", "text"), [(0, "15:30"), (8, "23:30"), (9, "Wed 00:30"), (24 * 6, "Mon 15:30"), (24 * 7, "2026-01-13")]
)
def test_times_to_come(hours: int, text: str) -> None:
    now = datetime(2026, 1, 6, 15, 30).astimezone()
    assert clock(now + timedelta(hours=hours), now) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0421, "0.042 s"),
        (9.52, "9.5 s"),
        (9.96, "10 s"),
        (59.6, "1 m 00 s"),
        (65, "1 m 05 s"),
        (3599.7, "1 h 00 m"),
        (7380, "2 h 03 m"),
        (86399, "1 d 00 h"),
        (100 * 3600, "4 d 04 h"),
        (float("nan"), "-"),
        (-65, "-1 m 05 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (12, "12"),
        (0.98123456, "0.9812"),
        (12345.6, "12346"),
        (1.234e-5, "1.234e-05"),
        ({"layers": 2, "seconds": 65}, "layers=2  seconds=1 m 05 s"),
        ([1, 0.25], "1, 0.25"),
        ("a\x1b[31mred\nline", "a\\x1b[31mred\\nline"),
    ],
)
def test_values(value: object, text: str) -> None:
    assert show(value) == text


def test_times_are_shown_in_the_readers_zone() -> None:
    time = datetime(2025, 3, 1, 12, tzinfo=UTC)
    assert show(time) == time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def on_a_terminal(rows: str, columns: str, width: int) -> str:
    """What a terminal of its own gets."""
    script = f"from tuner.cli.output import emit; emit({rows}, {columns}, 'table')"
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(width)}
    environment.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", script], stdout=slave, check=True, env=environment)
    os.close(slave)
    text = os.read(master, 10_000).decode()
    os.close(master)
    return text


def test_a_terminal_gets_the_table_by_rich() -> None:
    """Names with brackets stay whole, and the heading is bold."""
    text = on_a_terminal("[{'knob': 'learning_rate[sgd]'}]", "['knob']", 80)
    assert "learning_rate[sgd]" in text
    assert "\x1b[1m" in text


@pytest.mark.parametrize(("width", "cut"), [(80, True), (140, False)])
def test_a_row_is_a_line_of_the_terminal_and_its_longest_cell_gives_way(width: int, cut: bool) -> None:
    params = {f"knob_{number}": 0.001 * number for number in range(6)}
    rows = [{"number": n, "state": "COMPLETE", "value": 0.98, "seconds": 65, "params": params} for n in (7, 8)]
    text = on_a_terminal(repr(rows), "['number', 'state', 'value', 'seconds', 'params']", width)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert len(lines) == 3
    for line in lines[1:]:
        assert line.split()[1:6] == ["COMPLETE", "0.98", "1", "m", "05"]
        assert len(line) <= width
        assert line.rstrip().endswith("…") is cut
