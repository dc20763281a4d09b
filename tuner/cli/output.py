"""How commands print what they list: a table for people, JSON or YAML for scripts.

Scripts get whole rows, so a row may hold more keys than the table shows. A key `seconds` (or `…_seconds`) holds a
duration, which the table shows as `1 m 05 s` and scripts get as a number; `…_bytes` in the same way `612 MiB`.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar
from uuid import UUID

import click

FORMATS = ("table", "json", "yaml")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Column:
    """A column of a table: the row's key, and a title where the key does not say enough."""

    key: str
    title: str = ""

    @property
    def heading(self) -> str:
        return self.title or self.key.replace("_", " ")


def format_option(command: Command) -> Command:
    """Adds `--format table|json|yaml` to a command, as its argument `format`."""
    option = click.option(
        "--format", "format", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print."
    )
    return option(command)


def emit(rows: Sequence[Mapping[str, object]], columns: Sequence[Column | str], format: str) -> None:
    """Prints a list of rows: the columns as a table, or the whole rows as a JSON or YAML list."""
    if format == "table":
        wanted = [column if isinstance(column, Column) else Column(column) for column in columns]
        _emit_table(rows, wanted)
    else:
        _emit_document([plain(row) for row in rows], format)


def emit_one(mapping: Mapping[str, object], format: str) -> None:
    """Prints one object: a line per key (nested mappings indented), or a JSON or YAML object."""
    if format == "table":
        _emit_lines(mapping, indent=0)
    else:
        _emit_document(plain(mapping), format)


def show(value: object, key: str = "") -> str:
    """One value as people read it; the key tells durations from other numbers."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case timedelta():
            return duration(value.total_seconds())
        case int() | float() if key == "seconds" or key.endswith("_seconds"):
            return duration(value)
        case int() | float() if key.endswith("_bytes"):
            return size(value)
        case float():
            return _number(value)
        case Enum():
            return show(value.value)
        case datetime():
            return _zoned(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case Mapping():
            return "  ".join(f"{_printable(str(name))}={show(item, str(name))}" for name, item in value.items()) or "-"
        case list() | tuple():
            return ", ".join(show(item) for item in value) or "-"
    return _printable(str(value))


def duration(seconds: float) -> str:
    """Seconds as `0.42 s`, `9.5 s`, `1 m 05 s`, `2 h 03 m` or `3 d 04 h`.

    >>> duration(65)
    '1 m 05 s'
    """
    if not math.isfinite(seconds):
        return "-"
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} m"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def size(amount: float) -> str:
    """Bytes as `512 B`, `14 MiB` or `2.9 GiB`.

    >>> size(3_100_000_000)
    '2.9 GiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def clock(time: datetime, now: datetime) -> str:
    """When something will be, on the clock of whoever reads it: `14:32`, `Tue 14:32`, `2026-11-21`."""
    local, days = time.astimezone(), (time.astimezone().date() - now.astimezone().date()).days
    return f"{local:%H:%M}" if days == 0 else f"{local:%a %H:%M}" if days < 7 else f"{local:%Y-%m-%d}"


def plain(value: object) -> Any:
    """The value in what strict JSON has: NaN and infinity become null, times ISO 8601 with their zone.

    Raises TypeError for what has no such form (a bug of the caller).
    """
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return float(value) if math.isfinite(value) else None
        case datetime():
            return _zoned(value).isoformat()
        case timedelta():
            return value.total_seconds()
        case PurePath() | UUID():
            return str(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _emit_document(document: object, format: str) -> None:
    if format == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(document, text)
    click.echo(text.getvalue(), nl=False)


def _emit_table(rows: Sequence[Mapping[str, object]], columns: Sequence[Column]) -> None:
    cells = [[show(row.get(column.key), column.key) for column in columns] for row in rows]
    right = [_is_numeric([row.get(column.key) for row in rows]) for column in columns]
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        _emit_rich(cells, columns, right)
    else:
        _emit_plain(cells, columns, right)


def _emit_rich(cells: Sequence[Sequence[str]], columns: Sequence[Column], right: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    # Text, because a parameter such as `learning_rate[sgd]` would be taken for markup.
    for column, numeric in zip(columns, right, strict=True):
        table.add_column(Text(column.heading), justify="right" if numeric else "left")
    # A row is a line: where there is no room the widest cells are cut short, those that hold the most by far.
    for line in cells:
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in line))
    Console().print(table)


def _emit_plain(cells: Sequence[Sequence[str]], columns: Sequence[Column], right: Sequence[bool]) -> None:
    lines = [[column.heading for column in columns], *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        aligned = (
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(line, widths, right, strict=True)
        )
        click.echo("  ".join(aligned).rstrip())


def _emit_lines(mapping: Mapping[str, object], indent: int) -> None:
    headings = {key: _printable(key if indent else key.replace("_", " ")) for key in mapping}  # names of knobs stay
    width = max(map(len, headings.values()), default=0)
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            click.echo(" " * indent + headings[key])
            _emit_lines(value, indent + 2)
        else:
            click.echo(f"{' ' * indent}{headings[key].ljust(width)}  {show(value, key)}")


def _is_numeric(values: Sequence[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(
        isinstance(value, (int, float, timedelta)) and not isinstance(value, bool) for value in present
    )


def _number(value: float) -> str:
    """Four significant digits, and no exponent where a plain number is as short: 0.9812, 12346, 1.2e-05."""
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _zoned(time: datetime) -> datetime:
    """Optuna's times are UTC without saying so."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _printable(text: str) -> str:
    """Names come from a database that others write to: no escape sequence or line break reaches the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
