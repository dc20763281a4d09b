from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.bench import Bench
from tuner.storage.connection import Database


@pytest.fixture
def bench(db: Database, database_url: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(db, database_url, tmp_path)
    yield bench
    for worker in bench.workers:
        worker.stop()
