"""What a worker that was started early is told once its studies are there.

It comes on standard input, for it may hold a password: every user of the machine can read a process's arguments.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class Orders:
    database_url: str = field(repr=False)
    studies: list[str]

    @property
    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def await_orders() -> Orders | None:
    """Reads the line from standard input; None where that ends first: the launch came to nothing."""
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(0, 4096)  # not by sys.stdin, which would keep what comes after the line
        if not read:
            return None
        line += read
    return Orders(**json.loads(line))
