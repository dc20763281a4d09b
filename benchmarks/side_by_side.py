"""What the benchmarks share: the machine in a line, contestants in turn, medians with their spread, tables."""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return {
        "cores": cores(),
        "processor": names[0] if names else platform.machine(),
        "python": platform.python_version(),
    }


def cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def listed(facts: Mapping[str, Any]) -> str:
    """The machine, and whatever else stands at the head of a report, in a line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Another order in every round: whoever comes after a contestant that heats or fills the machine changes."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def in_turn(names: Sequence[str], rounds: int, what: str) -> Iterator[str]:
    """Every name once a round; says what is under way."""
    for turn in range(rounds):
        for name in rotated(names, turn):
            print(f"{what}: round {turn + 1} of {rounds}, {name}", file=sys.stderr, flush=True)
            yield name


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """`12.1 (11.8-12.9)`: the median and the range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As wide as it must be: the first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        first, *others = (f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(line))
        print("  ".join([first, *others]).rstrip())
