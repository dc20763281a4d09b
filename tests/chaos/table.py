"""The table of a run of the suite:  python -m tests.chaos.table FIGURES"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def table(lines: Iterable[Mapping[str, Any]]) -> str:
    """Markdown, a row for each line of figures."""
    rows = ["| test | form | measured | held | seconds |", "|---|---|---|---|---|"]
    for line in lines:
        figures = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in line["figures"].items())
        held = "yes" if line["held"] else "**no**"
        rows.append(
            f"| {line['test']} | {line['form']}, seed {line['seed']} | {figures} | {held} | {line['seconds']} |"
        )
    return "\n".join(rows)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(path: Path) -> None:
    sys.stdout.write(table(json.loads(line) for line in path.read_text().splitlines()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
