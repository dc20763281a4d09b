"""The command line on a real database: in this process for what is quick, as processes of its own for what trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tuner.cli.main import run
from tuner.storage.connection import Database
from tuner.storage.url import parse

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


@pytest.fixture
def here(database_url: str, tmp_path: Path) -> Site:
    return site(database_url, tmp_path / "home")


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture
def cli(here: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command in this process."""
    return _in_process(here, monkeypatch, capsys)


@pytest.fixture(scope="session")
def trained(database_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Done]]:
    """Where the study `tiny` was launched and trained to its end, and what the launch said. For reading only."""
    name = f"tuner_trained_{uuid4().hex[:6]}"
    folder = tmp_path_factory.mktemp("trained")
    file = folder / "tiny.yaml"
    file.write_text(TINY)
    with Database(database_server) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            where = site(replace(parse(database_server), database=name).url, folder / "home")
            yield where, where.run("launch", file, "--format", "json")
        finally:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def look(
    trained: tuple[Site, Done], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Runs a command in this process where the study `tiny` has been trained."""
    return _in_process(trained[0], monkeypatch, capsys)


def _in_process(
    where: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    for name in ("TUNER_ARTIFACTS", "TUNER_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TUNER_DATABASE_URL", "TUNER_HOME"):
        monkeypatch.setenv(name, where.environment[name])

    def command(*arguments: object) -> Done:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Done(code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True)))

    return command
