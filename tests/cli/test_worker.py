"""`tuner worker`: on a study that others made, and the list of workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cli.site import Cli, Site
from tuner.cli import slots
from tuner.errors import InvalidInput
from tuner.storage.connection import Database
from tuner.storage.workers import list_workers


def test_a_worker_works_until_the_budget_is_spent(here: Site, cli: Cli, spec_file: Path, db: Database) -> None:
    cli("launch", spec_file, "--workers", 0)
    done = here.run("worker", "start", "tiny", "--slots", 2, "--device", "cpu")
    assert done.code == 0, done.err
    assert done.out == ""
    assert "trial 3 complete" in done.err
    assert cli("study", "show", "tiny", "--format", "json").json["state"] == "finished"
    assert cli("worker", "list", "--format", "json").json == []
    (row,) = cli("worker", "list", "--all", "--format", "json").json
    assert (row["state"], row["slots"], row["device"], row["trials"]) == ("ended", 2, "cpu", 0)


def test_sigterm_ends_a_worker_that_waits(here: Site, cli: Cli, spec_file: Path, db: Database) -> None:
    """It serves what runs, is listed, and says so when it is asked to end."""
    process = here.start("worker", "start", "--slots", 1, "--device", "cpu")
    deadline = time.monotonic() + 60
    while not list_workers(db):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (row,) = cli("worker", "list", "--format", "json").json
    assert (row["pid"], row["state"], row["studies"]) == (process.pid, "alive", [])
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list_workers(db) == []


@pytest.mark.parametrize("slots", [0, -1, "x", 1_000_000])
def test_slots_beyond_sense_are_refused(cli: Cli, slots: object, db: Database) -> None:
    assert cli("worker", "start", "--slots", slots).code == 2
    assert list_workers(db, ended=True) == []


@pytest.mark.parametrize("limit", ["nan", "inf", 0.5])
def test_a_hang_limit_beyond_sense_is_refused(cli: Cli, limit: object, db: Database) -> None:
    assert cli("worker", "start", "--hang-limit", limit).code == 2
    assert list_workers(db, ended=True) == []


def test_slots_follow_the_gpus_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = slots.usable_cores()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots.sensible_slots(None, "auto") == cores
    assert slots.sensible_slots(None, "auto", workers=cores) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert slots.sensible_slots(None, "auto") == 3
    assert slots.sensible_slots(None, "cpu") == cores
    assert slots.sensible_slots(2, "auto") == 2
    with pytest.raises(InvalidInput, match=f"at most {4 * cores} in all"):
        slots.sensible_slots(2, "auto", workers=4 * cores)
