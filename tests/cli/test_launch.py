"""`tuner launch` from the file to the finished study, with real workers; interrupted, killed, detached."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import torch

from tests.cli.site import Cli, Done, Site
from tests.storage.rows import claim_one
from tuner.spec.stacking import Engine
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage import claims
from tuner.storage.connection import Database
from tuner.storage.studies import get_study, list_studies
from tuner.storage.trials import TrialRecord, list_trials
from tuner.storage.workers import list_workers, register

# Still training when a test gets to it: an epoch takes some tenths of a second.
SLOW = ("--set", "data.points=40000", "--set", "training.epochs=500", "--slots", 2, "--device", "cpu")


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def trials(db: Database, name: str = "tiny") -> list[TrialRecord]:
    return list_trials(db, get_study(db, name))


def training(db: Database) -> list[int]:
    """The numbers of the trials that have trained an epoch and go on."""
    return [trial.number for trial in trials(db) if trial.state is TrialState.RUNNING and trial.epochs]


@pytest.fixture
def slow(here: Site, spec_file: Path, db: Database) -> Iterator[subprocess.Popen[str]]:
    """A launch whose two slots train."""
    launch = here.start("launch", spec_file, *SLOW, "--format", "json")
    wait_for(lambda: launch.poll() is not None or (list_studies(db) and len(training(db)) == 2))
    assert launch.poll() is None, launch.stderr.read()
    family = psutil.Process(launch.pid).children(recursive=True)
    yield launch
    launch.communicate(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=20)
    for orphan in alive:
        orphan.kill()
    assert not alive


def test_too_many_failures_end_the_launch(here: Site, spec_file: Path, db: Database) -> None:
    endless = ("--set", "training.epochs=100000", "--set", "training.engine=single")
    launch = here.start("launch", spec_file, "--slots", 1, *endless)
    deadline = time.monotonic() + 60
    while not db.execute("SELECT FROM public.trials"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    db.execute("UPDATE tuner.study SET state = 'paused', reason = '2 trials failed, the last: no such file'")
    _, err = launch.communicate(timeout=90)
    assert launch.returncode == 9, err
    assert "study tiny: paused (2 trials failed, the last: no such file)" in err
    last = err.splitlines()[-1]
    assert last.startswith("tuner: study tiny was paused: 2 trials failed, the last: no such file; next: tuner ")
    assert last.endswith("study resume tiny")
    (row,) = db.execute("SELECT state FROM public.trials")
    assert row.state == "WAITING"


def test_the_result_is_one_object_on_stdout(trained: tuple[Site, Done], look: Cli) -> None:
    done = trained[1]
    assert done.code == 0, done.err
    result = done.json
    assert list(result) == ["study", "state", "trials", "best", "engine", "seconds"]
    assert (result["study"], result["state"]) == ("tiny", "finished")
    assert result["trials"] == {"complete": 4, "pruned": 0, "failed": 0}
    listed = look("trial", "list", "tiny", "--format", "json").json
    best = max(listed, key=lambda trial: trial["value"])
    assert result["best"] == {key: best[key] for key in ("number", "value", "params")}
    assert 0 < result["seconds"] == pytest.approx(sum(trial["seconds"] for trial in listed), abs=0.001)


def test_progress_and_commands_to_paste_are_on_stderr(trained: tuple[Site, Done]) -> None:
    err = trained[1].err
    assert "created, 4 trials of at most 3 epochs" in err
    for command in ("worker start tiny", "study watch tiny", "study stop tiny", "launch ", "dashboard"):
        assert f"tuner {command}" in err
    lines = [line for line in err.splitlines() if line.startswith("trial ")]
    assert {line.split("  ")[0] for line in lines} == {f"trial {number}" for number in range(4)}
    assert all("  complete  " in line and "/3  " in line and "learning_rate " in line for line in lines)


def test_a_finished_study_is_summed_up_at_once(trained: tuple[Site, Done], look: Cli, spec_file: Path) -> None:
    logs = trained[0].artifacts / "workers"
    before = list(logs.iterdir())
    done = look("launch", spec_file)
    assert done.code == 0
    assert "ended, 4 of 4 trials done" in done.err
    assert "4: 4 complete, 0 pruned, 0 failed" in done.out
    engine = look("study", "show", "tiny", "--format", "json").json["engine"]
    assert re.search(rf"^engine +{Engine(**engine)}$", done.out, re.MULTILINE)
    assert look("launch", spec_file, "--format", "json").json["engine"] == engine
    assert "tuner trial export tiny best" in done.out
    assert "worker start" not in done.err
    assert "study stop" not in done.err
    assert list(logs.iterdir()) == before


def test_a_larger_budget_goes_on_where_the_study_stopped(here: Site, cli: Cli, spec_file: Path, db: Database) -> None:
    cli("launch", spec_file, "--trials", 2, "--workers", 0)
    study, worker = get_study(db, "tiny"), uuid4()
    register(db, worker, host="there", pid=1, device="cpu", slots=1, version="1")
    for _ in range(2):
        claim = claim_one(db, study.study_id, worker)
        assert isinstance(claim, claims.Claim)
        claims.tell(db, claim.held, claims.Ending(outcome=Outcome.CRASHED))
    done = here.run("launch", spec_file, "--slots", 1, "--device", "cpu")
    assert done.code == 0, done.err
    assert "new budget, 2 of 4 trials done" in done.err
    progress, _, summary = done.out.partition("study ")  # without --format json, progress is part of the output
    assert [line[:17] for line in progress.splitlines()] == ["trial 2  complete", "trial 3  complete"]
    assert "4: 2 complete, 0 pruned, 2 failed (2 crashed)" in summary


def test_a_paused_study_goes_on(here: Site, cli: Cli, spec_file: Path) -> None:
    cli("launch", spec_file, "--workers", 0)
    cli("study", "pause", "tiny")
    done = here.run("launch", spec_file, "--slots", 1, "--device", "cpu", "--format", "json")
    assert (done.code, done.json["state"]) == (0, "finished"), done.err
    assert "goes on, 0 of 4 trials done" in done.err


def test_workers_are_as_loud_as_their_launcher(here: Site, spec_file: Path) -> None:
    def log(loudness: str) -> str:
        name = loudness.strip("-")
        launched = here.run(loudness, "launch", spec_file, "--trials", 1, "--name", name, "--slots", 1)
        assert launched.code == 0, launched.err
        newest = max((here.artifacts / "workers").iterdir(), key=lambda file: file.stat().st_mtime)
        return newest.read_text()

    assert "trial 0 trained epoch 3" in log("--verbose")
    assert log("--quiet") == ""


def test_workers_0_makes_the_study_and_starts_nothing(cli: Cli, here: Site, spec_file: Path, db: Database) -> None:
    done = cli("launch", spec_file, "--workers", 0, "--name", "other", "--format", "json")
    assert (done.code, done.json["state"], done.json["best"]) == (0, "running", None)
    assert get_study(db, "other").state is StudyState.RUNNING
    assert not here.artifacts.exists()
    assert list_workers(db, ended=True) == []


def test_a_changed_file_is_refused_with_the_difference(cli: Cli, spec_file: Path, db: Database) -> None:
    cli("launch", spec_file, "--workers", 0)
    before = get_study(db, "tiny")
    done = cli("launch", spec_file, "--workers", 0, "--set", "training.epochs=9", "--trials", 50)
    assert done.code == 2
    assert "--name tiny-2" in done.err
    assert "training.epochs: 3 -> 9" in done.err
    assert done.out == ""
    assert get_study(db, "tiny") == before


def test_a_budget_below_what_was_begun_is_refused(look: Cli, spec_file: Path) -> None:
    done = look("launch", spec_file, "--trials", 3)
    assert done.code == 2
    assert "4 trials were started" in done.err


def test_all_faults_are_told_before_the_database_is_touched(
    cli: Cli, spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_DATABASE_URL", "postgresql://127.0.0.1:9/nowhere")
    spec_file.write_text(spec_file.read_text().replace("units", "unitz").replace("seed: 0", "seed: x"))
    done = cli("launch", spec_file, "--trials", 0)
    assert (done.code, done.out) == (2, "")
    done = cli("launch", spec_file, "--trials", 5_000_000)
    assert done.code == 2
    assert done.err == "tuner: --trials: 5000000 is out of bounds; it must be at most 1,000,000\n"
    done = cli("launch", spec_file)
    assert done.code == 2
    assert len(done.err.splitlines()) == 2
    assert "tiny.yaml:3: model.unitz" in done.err
    assert "tiny.yaml:5: search.seed" in done.err


@pytest.mark.parametrize("options", [("--slots", 10_000), ("--workers", 5_000), ("--workers", 100, "--slots", 100)])
def test_more_workers_than_sense_are_refused(cli: Cli, spec_file: Path, db: Database, options: tuple[Any, ...]) -> None:
    done = cli("launch", spec_file, *options)
    assert done.code == 2
    assert "too many at once for the" in done.err
    assert list_studies(db) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "12 of 12 points"),
        (("--trials", 5), "5 of 12 points, a random sample of the grid"),
        (("--trials", 500), "12 of 12 points"),
    ],
)
def test_a_grid_says_how_much_of_it_the_budget_covers(
    cli: Cli, spec_file: Path, db: Database, options: tuple[Any, ...], words: str
) -> None:
    spec_file.write_text(spec_file.read_text().replace("budget: {trials: 4}", ""))
    done = cli("launch", spec_file, "--workers", 0, "--set", "search.method=grid", *options)
    assert done.code == 0, done.err
    assert words in done.err
    assert get_study(db, "tiny").budget.trials == int(words.split()[0])


def test_quiet_prints_the_result_alone(cli: Cli, spec_file: Path) -> None:
    done = cli("-q", "launch", spec_file, "--workers", 0, "--format", "json")
    assert done.err == ""
    assert done.json["study"] == "tiny"


def test_ctrl_c_gives_back_what_ran(slow: subprocess.Popen[str], db: Database, here: Site) -> None:
    slow.send_signal(signal.SIGINT)
    out, err = slow.communicate(timeout=60)
    assert slow.returncode == 130
    assert out == ""
    assert "finishing the running epochs" in err
    assert "go on with: tuner launch" in err
    assert "Traceback" not in err
    given_back = trials(db)
    assert {trial.state for trial in given_back} == {TrialState.WAITING}
    for trial in given_back:
        assert trial.checkpoint
        assert (here.artifacts / trial.checkpoint).name == f"{trial.epochs}.ckpt"
    assert list_workers(db) == []


def test_workers_do_not_outlive_a_launcher_that_is_killed(slow: subprocess.Popen[str], db: Database) -> None:
    slow.kill()
    wait_for(lambda: list_workers(db) == [])
    assert {trial.state for trial in trials(db)} == {TrialState.WAITING}


@pytest.mark.parametrize(
    ("command", "database", "code"), [("launch", True, 2), ("launch", False, 4), ("compare", False, 4)]
)
def test_a_launch_that_fails_leaves_no_worker_behind(
    here: Site, cli: Cli, spec_file: Path, db: Database, command: str, database: bool, code: int
) -> None:
    """It has started them before it knew."""
    cli("launch", spec_file, "--workers", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a server that says nothing until it goes away
        if not database:
            here.environment["TUNER_DATABASE_URL"] = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/nowhere"
        launch = here.start(command, spec_file, "--set", "training.epochs=9")
        family = wait_for(lambda: launch.poll() is not None or psutil.Process(launch.pid).children(recursive=True))
    _, err = launch.communicate(timeout=60)
    assert family is not True, f"it ended before it had a worker: {err}"
    assert launch.returncode == code, err
    assert all(line.startswith("tuner: ") for line in err.splitlines())
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert list((here.artifacts / "workers").iterdir()) == []
    assert list_workers(db, ended=True) == []


def test_a_gpu_that_is_not_there_is_missed_before_anything_is_made(cli: Cli, spec_file: Path, db: Database) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = cli("launch", spec_file, "--device", "cuda")
    assert (done.code, done.err) == (2, "tuner: --device cuda: there is no CUDA device here; use cpu or auto\n")
    assert list_studies(db) == []


def test_a_study_that_is_deleted_in_training_leaves_no_files(
    slow: subprocess.Popen[str], cli: Cli, here: Site, db: Database
) -> None:
    folder = here.artifacts / get_study(db, "tiny").folder
    assert folder.is_dir()
    assert cli("study", "delete", "tiny", "--yes").code == 0
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 3
    assert "Traceback" not in err
    assert not folder.exists()
    assert list_workers(db) == []


def test_a_launch_fails_when_its_workers_are_gone(slow: subprocess.Popen[str], db: Database, here: Site) -> None:
    (worker,) = list_workers(db)
    os.kill(worker.pid, signal.SIGKILL)
    out, err = slow.communicate(timeout=60)
    assert slow.returncode == 7
    assert out == ""
    (log,) = (here.artifacts / "workers").iterdir()
    assert f"tuner: a worker was killed by SIGKILL (log: {log})" in err
    assert "go on with: tuner launch" in err
    assert "--slots 2 --device cpu" in err


def test_detached_workers_go_on_until_the_study_ends(here: Site, cli: Cli, spec_file: Path, db: Database) -> None:
    done = here.run("launch", spec_file, *SLOW, "--detach", "--format", "json")
    assert (done.code, done.json["state"]) == (0, "running")
    assert f"log: {next((here.artifacts / 'workers').iterdir())}" in done.err
    wait_for(lambda: training(db))
    (worker,) = list_workers(db)
    assert os.getsid(worker.pid) == worker.pid
    assert cli("study", "show", "tiny", "--format", "json").json["workers"] == 1
    assert cli("study", "cancel", "tiny").code == 0
    wait_for(lambda: not psutil.pid_exists(worker.pid) or list_workers(db) == [])
    assert {trial.outcome for trial in trials(db)} == {"cancelled"}
