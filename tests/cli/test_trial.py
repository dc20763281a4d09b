"""`tuner trial`: the trials of a study, their logs and their models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import torch

import tuner
from tests.cli.site import Cli, Done, Site
from tests.storage.rows import claim_one
from tuner.cli.trial import sparkline
from tuner.states import Outcome
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Ending, Progress
from tuner.storage.connection import Database
from tuner.storage.studies import get_study


def test_list_is_what_scripts_rely_on(look: Cli) -> None:
    rows = look("trial", "list", "tiny", "--format", "json").json
    assert [row["number"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        assert (row["state"], row["outcome"], row["epochs"], row["attempts"]) == ("COMPLETE", "complete", 3, 1)
        assert set(row["params"]) == {"layers", "units", "learning_rate"}
        assert isinstance(row["value"], float)


def test_show_has_every_knob_the_curve_and_commands(look: Cli) -> None:
    text = look("trial", "show", "tiny", "best").out
    assert "weight_decay" in text  # fixed, and part of the configuration all the same
    assert "…" in text
    shown = look("trial", "show", "tiny", "best", "--format", "json").json
    assert sorted(shown["curve"]) == ["1", "2", "3"]
    assert max(shown["curve"].values()) == shown["value"] == shown["curve"][str(shown["best_epoch"])]
    assert shown["config"]["model"]["layers"] == shown["params"]["layers"]
    assert f"tuner trial export tiny {shown['number']} --to tiny-{shown['number']}" in text


def test_logs_are_what_the_training_wrote(look: Cli) -> None:
    text = look("trial", "logs", "tiny", 0).out
    assert text == look("trial", "logs", "tiny", 0, "--follow").out  # it has ended
    assert "epoch 3 " in text


def test_export_makes_a_model_that_predicts(look: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert look("trial", "export", "tiny", "best", "--to", folder).code == 0
    assert tuner.load_model(folder)(torch.zeros(5, 2)).shape == (5, 2)
    refused = look("trial", "export", "tiny", 0, "--to", folder)
    assert refused.code == 2
    assert "--force" in refused.err
    assert look("trial", "export", "tiny", 0, "--to", folder, "--force").code == 0


def test_a_trial_without_a_checkpoint_says_so(cli: Cli, spec_file: Path, db: Database, tmp_path: Path) -> None:
    cli("launch", spec_file, "--workers", 0)
    study = get_study(db, "tiny")
    worker = uuid4()
    workers.register(db, worker, host="there", pid=1, device="cpu", slots=1, version="1")
    held = claim_one(db, study.study_id, worker)
    assert isinstance(held, Claim)
    shown = cli("trial", "show", "tiny", 0)  # it has no point yet
    assert shown.code == 0, shown.err
    claims.tell(db, held.held, Ending(outcome=Outcome.PRUNED, value=0.5), Progress(curve={1: 0.5, 2: 0.4}))
    done = cli("trial", "export", "tiny", 0, "--to", tmp_path / "model")
    assert done.code == 3
    assert "pruned after 2 epochs" in done.err
    assert not (tmp_path / "model").exists()
    assert cli("trial", "logs", "tiny", 0).code == 3
    assert cli("trial", "show", "tiny", "best").code == 3  # none is complete


@pytest.mark.parametrize("command", [("show",), ("logs",), ("export", "--to", "model")])
def test_an_unknown_trial_is_one_line(look: Cli, command: tuple[str, ...], tmp_path: Path) -> None:
    for trial in ("7", "-1", "nonsense", "99999999999999999999"):
        done = look("trial", command[0], "tiny", "--", trial) if len(command) == 1 else None
        done = done or look("trial", "export", "--to", tmp_path / "model", "tiny", "--", trial)
        assert done.code == 3, trial
        assert len(done.err.splitlines()) == 1


def test_a_closed_pipe_is_quiet(trained: tuple[Site, Done]) -> None:
    """`tuner trial logs tiny 0 | head -c 1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "trial", "logs", "tiny", "0"],
        env=trained[0].environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
    process.wait()


def test_failed_trials_are_told_and_run_again(cli: Cli, here: Site, spec_file: Path, db: Database) -> None:
    cli("launch", spec_file, "--workers", 0)
    study, worker = get_study(db, "tiny"), uuid4()
    workers.register(db, worker, host="node7", pid=42, device="cpu", slots=1, version="0")
    for death in (Outcome.CRASHED, Outcome.TIMED_OUT):
        claim = claim_one(db, study.study_id, worker)
        assert isinstance(claim, Claim)
        if death is Outcome.CRASHED:
            claims.give_back(db, claim.held, death=death, reason="its process was killed by SIGKILL")
        else:
            claims.tell(db, claim.held, Ending(outcome=death, reason="made no step for 120 s"))
    text = cli("trial", "show", "tiny", 0).out
    assert "node7:42" in text
    assert "crashed: its process was killed by SIGKILL" in text
    history = cli("trial", "show", "tiny", 0, "--format", "json").json["history"]
    assert [(attempt["attempt"], attempt["ended"]) for attempt in history] == [(1, "crashed"), (2, "timed_out")]
    assert cli("study", "show", "tiny", "--format", "json").json["interrupted_attempts"] == {"crashed": 1}
    assert cli("trial", "retry", "tiny").code == 2
    assert "trial 7" in cli("trial", "retry", "tiny", 7).err
    assert cli("trial", "retry", "tiny", "--failed").code == 0
    assert "no trial has failed" in cli("trial", "retry", "tiny", "--failed").err
    assert here.run("worker", "start", "tiny", "--slots", 1).code == 0
    trials = cli("trial", "list", "tiny", "--format", "json").json
    assert [(trial["outcome"], trial["attempts"]) for trial in trials] == [("complete", 3)] + [("complete", 1)] * 3


def test_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.3, 0.3]) == "▁▁"
    assert sparkline([0.0, 1.0, float("nan"), 0.5]) == "▁█ ▅"
    assert len(sparkline([float(n) for n in range(500)], width=40)) == 40
    assert sparkline([float(n) for n in range(500)], width=40)[-1] == "█"
