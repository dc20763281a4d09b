"""Where commands are run: a database and folders of their own; and what a command did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Four trials of three epochs, each a few hundredths of a second.
TINY = """\
study: tiny
data: {name: spiral, points: 200}
model: {family: mlp, layers: {low: 1, high: 2}, units: {choices: [8, 16]}}
training: {epochs: 3, batch_size: 32, learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true, points: 3}}
search: {method: random, seed: 0}
budget: {trials: 4}
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A database and folders of their own, and commands as processes that use them."""

    environment: dict[str, str]
    artifacts: Path

    @property
    def url(self) -> str:
        return self.environment["TUNER_DATABASE_URL"]

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, "-m", "tuner", *map(str, arguments)]
        return subprocess.Popen(command, text=True, env=self.environment, **pipes)

    def run(self, *arguments: object) -> Done:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return Done(code=process.returncode, out=out, err=err)


def site(url: str, home: Path) -> Site:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TUNER_")}
    environment |= {"TUNER_DATABASE_URL": url, "TUNER_HOME": str(home)}
    return Site(environment=environment, artifacts=home / "artifacts")


Cli = Callable[..., Done]  # runs a command in this process
