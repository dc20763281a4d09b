"""A primary that dies and a standby that takes over: workers whose URL names both go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.worker.bench import SLOW, SLOW_EPOCHS, Bench
from tuner.storage.connection import Database
from tuner.storage.programs import packaged
from tuner.storage.schema import ensure_schema
from tuner.storage.server import EmbeddedServer
from tuner.storage.url import parse

REPLICATED = "synchronous_standby_names = '*'\n"  # a commit is answered once the standby has it


@pytest.fixture
def primary(open_folder: Path) -> EmbeddedServer:
    server = EmbeddedServer(open_folder / "postgres-primary")
    ensure_schema(server.start())
    return server


@pytest.fixture
def standby(primary: EmbeddedServer, open_folder: Path) -> EmbeddedServer:
    """A copy of the primary that follows it."""
    server = EmbeddedServer(open_folder / "postgres-standby")
    server.start()  # makes the folders and whom they belong to
    server.stop()
    data = server.folder / "data"
    owner = data.stat()
    shutil.rmtree(data)
    (sockets,) = parse(str(primary.status().url)).hosts
    programs, _ = packaged()
    copy = [programs / "bin" / "pg_basebackup", "-h", sockets, "-U", "tuner", "-D", data, "-R", "-c", "fast"]
    subprocess.run(copy, check=True, capture_output=True)
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    server.start()
    with Database(str(primary.status().url)) as db:
        (folder,) = db.execute("SHOW data_directory")
        Path(folder.data_directory, "local.conf").write_text(REPLICATED)
        db.execute("SELECT pg_reload_conf()")
    return server


def test_workers_go_on_with_the_standby(primary: EmbeddedServer, standby: EmbeddedServer, tmp_path: Path) -> None:
    first, second = (parse(str(server.status().url)).hosts[0] for server in (primary, standby))
    url = f"postgresql://tuner@/tuner?host={first}&host={second}&target_session_attrs=read-write"
    with Database(url) as db:
        bench = Bench(db, url, tmp_path)
        study = bench.study(SLOW)
        worker = bench.start("slow", "--slots", "2")
        try:
            bench.until(lambda: bench.epochs(study) >= 2, "epochs before the failure")
            pid = primary.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGQUIT)
            with Database(str(standby.status().url)) as taking_over:
                taking_over.execute("SELECT pg_promote()")
            code, output = worker.wait()
        finally:
            worker.stop()
        assert code == 0, output
        db.close()  # its own connection was the primary's
        rows = bench.trials(study)
    assert [(row.state, row.attempt, row.deaths) for row in rows] == [("COMPLETE", 1, 0)] * 2
    assert [row.steps for row in rows] == [list(range(1, SLOW_EPOCHS + 1))] * 2
