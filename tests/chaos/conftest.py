"""The chaos suite's options, its fixtures, and the table that it prints."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.chaos.harness import Arena, Figures, Form, Zygote
from tests.chaos.table import table
from tests.conftest import remove_server
from tuner.storage.connection import Database
from tuner.storage.schema import ensure_schema
from tuner.storage.server import EmbeddedServer
from tuner.storage.url import parse

FULL_TIMEOUT_SECONDS = 3600
_lines = pytest.StashKey[list[dict[str, Any]]]()
_figures = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--chaos", choices=["short", "full"], default="short", help="size of the chaos suite")
    group.addoption("--chaos-seed", type=int, help="of what is killed, and when (default: another one each time)")
    group.addoption("--chaos-figures", type=Path, help="file to which each test adds a line of what it measured")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.chaos)
            if config.getoption("--chaos", "short") == "full":
                item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def form(request: pytest.FixtureRequest) -> Form:
    full = request.config.getoption("--chaos", "short") == "full"
    seed = request.config.getoption("--chaos-seed", None)
    return Form(
        full=full, seed=random.SystemRandom().randrange(10**6) if seed is None else seed, lease_seconds=6 if full else 4
    )


@pytest.fixture(scope="session")
def zygote(form: Form) -> Iterator[Zygote]:
    zygote = Zygote({**form.environment, "OPENBLAS_NUM_THREADS": "1"})
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def durable_server() -> Iterator[EmbeddedServer]:
    """fsync is on: what is killed here must be there afterwards. Its database `tuner` has the tables, and no rows."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-chaos-"))
    folder.chmod(0o711)
    server = EmbeddedServer(folder / "postgres")
    try:
        ensure_schema(server.start())
        yield server
    finally:
        remove_server(server.folder)
        folder.rmdir()


@pytest.fixture
def arena(durable_server: EmbeddedServer, zygote: Zygote, form: Form, tmp_path: Path) -> Iterator[Arena]:
    url = durable_server.start()  # a row may have left it dead
    name = f"chaos_{uuid4().hex[:12]}"
    with Database(url) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{parse(url).database}"')
    arena = Arena(zygote, durable_server, replace(parse(url), database=name).url, tmp_path, form)
    yield arena
    arena.close()
    with Database(durable_server.start()) as admin:
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """What is put into it becomes the row's line of the table."""
    request.node.stash[_figures] = found = Figures()
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    figures = item.stash.get(_figures, None)
    if figures is not None and call.when == "call" and not report.skipped:
        form: Form = item.funcargs["form"]  # type: ignore[attr-defined]
        line = {
            "test": item.originalname.removeprefix("test_").replace("_", " "),
            "form": "full" if form.full else "short",
            "seed": form.seed,
            "held": report.passed,
            "seconds": round(call.duration),
            "figures": figures,
        }
        item.config.stash.setdefault(_lines, []).append(line)
        if file := item.config.getoption("--chaos-figures", None):
            with file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_lines, []):
        terminalreporter.section("chaos")
        terminalreporter.write_line(table(lines))
