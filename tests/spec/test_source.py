"""Scalars are those of YAML 1.2's core schema, which PyYAML's are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.spec.source import read_source


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        (".5", 0.5),
        ("-1.", -1.0),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ('"true"', "true"),
        ("[1, [2]]", [1, [2]]),
        ("{b: 1, 2: c}", {"b": 1, "2": "c"}),
        ("|\n  two\n  lines", "two\nlines\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(f"key: {text}\n")
    read = read_source(file).document["key"]
    assert read == value
    assert type(read) is type(value)


def test_a_byte_order_mark_and_foreign_line_ends_are_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes("\ufeffa: 1\r\nb:\r\n  c: ä\r\n".encode())
    assert read_source(file).document == {"a": 1, "b": {"c": "ä"}}


def test_an_override_is_yaml_at_a_dotted_key(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("a: {b: 1, c: [1, 2]}\nd: 3\n")
    source = read_source(file, ["a.b=1e-3", "a.c={x: no}", "d.e.f='4'", "g=", "a.c.y=x=y"])
    assert source.document == {"a": {"b": 0.001, "c": {"x": "no", "y": "x=y"}}, "d": {"e": {"f": "4"}}, "g": None}
    assert source.faults == {}
