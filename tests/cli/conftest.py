"""The command line on a real database: in this process for what is quick, as processes of its own for what trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.site import TINY, Cli, Done, Site, site
from tuner.cli.main import run
from tuner.storage.connection import Database
from tuner.storage.url import parse


@pytest.fixture
def here(database_url: str, tmp_path: Path) -> Site:
    return site(database_url, tmp_path / "home")


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture
def cli(here: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
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
def look(trained: tuple[Site, Done], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process where the study `tiny` has been trained."""
    return _in_process(trained[0], monkeypatch, capsys)


def _in_process(where: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    for name in ("TUNER_ARTIFACTS", "TUNER_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TUNER_DATABASE_URL", "TUNER_HOME"):
        monkeypatch.setenv(name, where.environment[name])

    def command(*arguments: object) -> Done:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Done(code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True)))

    return command
