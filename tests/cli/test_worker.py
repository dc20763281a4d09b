"""`tuner worker`: on a study that others made, and the list of workers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.site import Cli, Site
from tests.storage.rows import claim_one
from tuner.cli import slots
from tuner.errors import InvalidInput
from tuner.storage.connection import Database
from tuner.storage.studies import get_study
from tuner.storage.url import parse
from tuner.storage.workers import list_workers, register
from tuner.training.machine import usable_cores


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


def test_trials_in_training_are_listed_as_ranges(cli: Cli, spec_file: Path, db: Database) -> None:
    cli("launch", spec_file, "--workers", 0, "--trials", 9)
    study, workers = get_study(db, "tiny"), (uuid4(), uuid4())
    for worker in workers:
        register(db, worker, host="there", pid=1, device="cpu", slots=1, version="1")
    for number in range(9):
        claim_one(db, study.study_id, workers[number in (4, 5, 8)])
    done = cli("worker", "list")
    assert re.findall(r"  tiny (.*?)  ", done.out) == ["0-3, 6-7", "4-5, 8"]
    rows = cli("worker", "list", "--format", "json").json
    assert [row["training"]["tiny"] for row in rows] == [[0, 1, 2, 3, 6, 7], [4, 5, 8]]


def test_sigterm_ends_a_worker_that_waits(here: Site, cli: Cli, spec_file: Path, db: Database) -> None:
    """It serves what runs, is listed, and says so when it is asked to end."""
    process = here.start("worker", "start", "--slots", 1, "--device", "cpu")
    deadline = time.monotonic() + 60
    while not list_workers(db):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (row,) = cli("worker", "list", "--format", "json").json
    assert (row["pid"], row["state"], row["training"]) == (process.pid, "alive", {})
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list_workers(db) == []


@pytest.mark.parametrize("slots", [0, -1, "x", 1_000_000])
def test_slots_beyond_sense_are_refused(cli: Cli, slots: object, db: Database) -> None:
    assert cli("worker", "start", "--slots", slots).code == 2
    assert list_workers(db, ended=True) == []


@pytest.mark.parametrize("limit", ["0", "-5m", "soon", "1e3", "nan", "3w"])
def test_a_time_limit_that_is_none_is_refused(cli: Cli, limit: str, db: Database) -> None:
    done = cli("worker", "start", "--time-limit", limit)
    assert (done.code, "write 90s, 30m, 2h or 1d" in done.err) == (2, True)
    assert list_workers(db, ended=True) == []


@pytest.mark.parametrize(
    ("lease", "heartbeat", "words"),
    [
        ("15", "", "15 is too short for a heartbeat every 5 s; at least 20"),
        ("", "10", "30 is too short for a heartbeat every 10 s; at least 40"),
        ("half a minute", "", "'half a minute' is not a number of seconds"),
        ("inf", "", "'inf' is not a number of seconds"),
        ("", "-1", "'-1' is not a number of seconds"),
    ],
)
def test_a_lease_that_no_worker_could_keep_is_refused(
    here: Site, spec_file: Path, lease: str, heartbeat: str, words: str
) -> None:
    here.environment.update(TUNER_LEASE_SECONDS=lease, TUNER_HEARTBEAT_SECONDS=heartbeat)
    done = here.run("worker", "start")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert words in done.err


def test_a_database_that_may_only_be_read_is_said_in_one_line(here: Site, spec_file: Path, db: Database) -> None:
    role = f"reader_{os.getpid()}"
    db.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA tuner TO {role}")
    db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA tuner, public TO {role}")
    try:
        here.environment["TUNER_DATABASE_URL"] = replace(parse(here.url), user=role).url
        assert here.run("study", "list").code == 0
        done = here.run("worker", "start")
        assert (done.code, len(done.err.splitlines())) == (4, 1)
        assert f"user {role}: permission denied for table worker" in done.err
    finally:
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_an_artifacts_folder_that_cannot_be_is_said_in_one_line(here: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    here.environment["TUNER_ARTIFACTS"] = str(tmp_path / "file" / "artifacts")
    done = here.run("worker", "start")
    assert (done.code, len(done.err.splitlines())) == (6, 1)
    assert "Not a directory" in done.err


def test_a_worker_of_another_release_leaves_the_study_alone(
    cli: Cli, here: Site, spec_file: Path, db: Database
) -> None:
    cli("launch", spec_file, "--workers", 0)
    db.execute('UPDATE tuner.study SET versions = versions || \'{"tuner": "0.0.3"}\'')
    done = here.run("worker", "start", "tiny", "--slots", 1)
    assert (done.code, "was made by tuner 0.0.3" in done.err.splitlines()[-1]) == (2, True)
    assert db.execute("SELECT FROM public.trials") == []


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_clock_that_is_off_by_an_hour_does_not_matter(here: Site, cli: Cli, spec_file: Path) -> None:
    cli("launch", spec_file, "--workers", 0)
    for offset in ("-1h", "+1h"):
        command = [sys.executable, "-P", "-m", "tuner", "worker", "start", "tiny", "--slots", "1", "--count", "2"]
        environment = {**here.environment, "DONT_FAKE_MONOTONIC": "1"}
        worker = subprocess.run(
            ["faketime", "-f", offset, *command], env=environment, capture_output=True, text=True, check=False
        )
        assert worker.returncode == 0, worker.stderr
    trials = cli("trial", "list", "tiny", "--format", "json").json
    assert [(trial["state"], trial["attempts"]) for trial in trials] == [("COMPLETE", 1)] * 4
    assert all(trial["seconds"] < 60 for trial in trials)


@pytest.mark.parametrize("limit", ["nan", "inf", 0.5])
def test_a_hang_limit_beyond_sense_is_refused(cli: Cli, limit: object, db: Database) -> None:
    assert cli("worker", "start", "--hang-limit", limit).code == 2
    assert list_workers(db, ended=True) == []


def test_slots_follow_the_gpus_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = usable_cores()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots.sensible_slots(None, "auto") == cores
    assert slots.sensible_slots(None, "auto", workers=cores) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert slots.sensible_slots(None, "auto") == 3
    assert slots.sensible_slots(None, "cpu") == cores
    assert slots.sensible_slots(2, "auto") == 2
    assert slots.sensible_slots(slots.AUTO, "auto") == slots.AUTO
    assert slots.sensible_slots(slots.AUTO, "cpu") == cores
    assert (slots.children("auto"), slots.children("cpu")) == (3, None)
    with pytest.raises(InvalidInput, match=f"at most {4 * cores} in all"):
        slots.sensible_slots(2, "auto", workers=4 * cores)
