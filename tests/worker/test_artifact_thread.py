"""Workers whose checkpoints and logs are in an object store: other machines go on from there."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import torch

from tests.storage.s3 import s3_server
from tests.worker.bench import QUICK, SLOW, SLOW_EPOCHS, Bench
from tuner.errors import ArtifactError
from tuner.settings import read_settings
from tuner.storage import retry, workers
from tuner.storage.artifacts import open_store
from tuner.storage.connection import Database
from tuner.storage.object_store import ObjectStore
from tuner.storage.studies import StudyRecord
from tuner.training import checkpoint
from tuner.worker.artifact_thread import ArtifactThread
from tuner.worker.events import Claimed, StorageAnswer, StorageFailed
from tuner.worker.requests import ClaimNext, Close, Report
from tuner.worker.storage_thread import StorageThread


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/shared"
        return
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def machines(bench: Bench, url: str) -> Bench:
    """A bench whose workers keep artifacts at the URL."""
    bench.environment = {**os.environ, **bench.environment, "TUNER_ARTIFACTS": url}
    return bench


def move(bench: Bench, name: str) -> Path:
    """Has what is started from now on run on another machine; returns its home."""
    home = bench.home / name
    bench.environment["TUNER_HOME"] = str(home)
    return home


def run(bench: Bench, *arguments: str) -> str:
    command = [sys.executable, "-m", "tuner", *arguments]
    return subprocess.run(command, env=bench.environment, capture_output=True, text=True, check=True).stdout


def stored(bench: Bench) -> ObjectStore:
    store = open_store(read_settings(bench.environment))
    assert isinstance(store, ObjectStore)
    return store


def assert_as_if_undisturbed(bench: Bench, study: StudyRecord) -> None:
    """Curves, values and weights are those of the same trials, trained at once with files in a folder."""
    elsewhere = Bench(bench.db, bench.environment["TUNER_DATABASE_URL"], bench.home)
    elsewhere.environment.pop("TUNER_ARTIFACTS", None)
    undisturbed = elsewhere.study(SLOW, name="undisturbed")
    elsewhere.finish("undisturbed", "--slots", "2")
    store = stored(bench)
    for row, whole in zip(bench.trials(study), elsewhere.trials(undisturbed), strict=True):
        assert (row.state, row.steps) == ("COMPLETE", list(range(1, SLOW_EPOCHS + 1)))
        assert (row.curve, row.value) == (whole.curve, whole.value)
        ours = checkpoint.load(store.fetch(row.checkpoint))
        theirs = checkpoint.load(elsewhere.home / "artifacts" / whole.checkpoint)
        assert ours.epoch == SLOW_EPOCHS
        assert all(torch.equal(ours.model[name], theirs.model[name]) for name in theirs.model)
        assert all(torch.equal(ours.best.model[name], theirs.best.model[name]) for name in theirs.best.model)


def test_another_machine_goes_on_where_one_was_killed(machines: Bench, url: str) -> None:
    bench = machines
    study = bench.study(SLOW)
    killed_home = move(bench, "killed")
    worker = bench.start("slow", "--slots", "2")
    bench.until(lambda: any(row.checkpoint for row in bench.trials(study)), "a first checkpoint")
    kept = next(row.number for row in bench.trials(study) if row.checkpoint)
    move(bench, "onlooker")
    assert "epoch 1 " in run(bench, "trial", "logs", "slow", str(kept))  # while it trains
    family = worker.seen.children(recursive=True)
    os.kill(worker.process.pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=5)

    home = move(bench, "heir")
    bench.finish("slow", "--slots", "2")
    assert {row.attempt for row in bench.trials(study)} == {2}
    assert_as_if_undisturbed(bench, study)
    assert list((home / "scratch").glob("*/")) == []
    assert not (home / "artifacts").exists()
    assert list((killed_home / "scratch").glob("*/"))  # until a worker starts there again

    move(bench, "onlooker")
    text = run(bench, "trial", "logs", "slow", str(kept))
    assert [f"attempt {attempt}" in text for attempt in (1, 2, 3)] == [True, True, False]
    assert f"epoch {SLOW_EPOCHS} " in text
    assert text.splitlines()[-1].endswith("complete")
    run(bench, "trial", "export", "slow", "best", "--to", str(bench.home / "model"))
    assert (bench.home / "model" / "model.safetensors").exists()
    place = stored(bench)
    assert place.find_study(study.folder) == f"{url}/{study.folder}"
    run(bench, "study", "delete", "slow", "--yes")
    assert place.find_study(study.folder) is None


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_only_the_checkpoint_that_is_pointed_to_is_kept(machines: Bench, tmp_path: Path) -> None:
    study = machines.study(SLOW)
    machines.finish("slow", "--slots", "2")
    kept = {row.checkpoint for row in machines.trials(study)}
    assert {file.relative_to(tmp_path / "shared").as_posix() for file in tmp_path.glob("shared/**/*.ckpt")} == kept


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_sigterm_keeps_what_was_trained(machines: Bench) -> None:
    study = machines.study(SLOW)
    worker = machines.start("slow", "--slots", "2")
    machines.until(lambda: machines.epochs(study) >= 3, "three epochs")
    os.kill(worker.process.pid, signal.SIGTERM)
    code, output = worker.wait(25)
    assert code == 130, output
    store = stored(machines)
    for row in machines.trials(study):
        assert (row.state, row.deaths, row.lease_until) == ("WAITING", 0, None)
        assert checkpoint.load(store.fetch(row.checkpoint)).epoch == row.epoch


@contextmanager
def away(place: Path) -> Iterator[None]:
    """The store is gone, and nothing can be written where it was; then it is back."""
    moved = place.with_name("moved")
    place.rename(moved)
    place.write_text("in the way")
    try:
        yield
    finally:
        place.unlink()
        moved.rename(place)


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_a_store_that_is_away_for_a_while_costs_nothing(machines: Bench, tmp_path: Path) -> None:
    study = machines.study(SLOW)
    worker = machines.start("slow", "--slots", "2")
    machines.until(lambda: machines.trials(study) and all(row.epoch for row in machines.trials(study)), "epochs")
    with away(tmp_path / "shared"):
        machines.until(lambda: machines.epochs(study) == 2 * SLOW_EPOCHS, "all epochs to be in the database")
        assert {row.state for row in machines.trials(study)} == {"RUNNING"}
    code, output = worker.wait()
    assert code == 0, output
    assert "trying again" in output
    assert {(row.attempt, row.deaths) for row in machines.trials(study)} == {(1, 0)}
    assert_as_if_undisturbed(machines, study)


def test_a_store_that_stays_away_ends_the_worker_without_a_death(
    bench: Bench, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "GIVE_UP_SECONDS", 0.0)
    study = bench.study(QUICK, training__engine="single")
    worker = uuid4()
    workers.register(bench.db, worker, host="here", pid=1, device="cpu", slots=1, version="0")
    place = tmp_path / "shared"
    store = ObjectStore(f"file://{place}", tmp_path / "scratch")
    store.check_writable()
    answers: queue.Queue[StorageAnswer] = queue.Queue()
    storage = partial(
        StorageThread, Database(database_url), worker, [study], heartbeat_seconds=5.0, register=lambda: None
    )
    thread = ArtifactThread(store, storage, answers.put)
    thread.start()
    thread.post(ClaimNext(slot=0))
    claimed = answers.get(timeout=20)
    assert isinstance(claimed, Claimed)
    held = claimed.trials[0].claim.held
    file = store.root / study.folder / str(held.trial_id) / "1" / "1.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    with away(place):
        thread.post(Report(held=held, curve={1: 0.5}, checkpoint=file.relative_to(store.root).as_posix()))
        failed = answers.get(timeout=20)
    assert isinstance(failed, StorageFailed)
    assert isinstance(failed.error, ArtifactError)
    thread.post(Close(reason=str(failed.error)))
    thread.join(20)
    (row,) = bench.trials(study)
    assert (row.state, row.curve, row.checkpoint, row.deaths) == ("WAITING", [0.5], None, 0)


@pytest.mark.parametrize("place", ["nonsense://bucket/prefix", "s3://AKIA:hunter2@bucket", "file:///dev/null/folder"])
def test_a_place_that_cannot_be_used_is_one_line(bench: Bench, place: str) -> None:
    bench.study(QUICK)
    bench.environment["TUNER_ARTIFACTS"] = place
    code, output = bench.start("quick", "--slots", "1").wait()
    assert code == 6
    assert len(output.splitlines()) == 1
    assert output.startswith("tuner: ")
    assert "hunter2" not in output
