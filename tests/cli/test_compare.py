"""Comparisons on a real database, one of them trained by real workers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.cli.main import run
from tuner.storage.comparisons import list_comparisons
from tuner.storage.connection import Database
from tuner.storage.studies import get_study, list_studies
from tuner.storage.trials import list_trials

SPIRAL = """\
study: spiral
data: {name: spiral, points: 120}
model: {family: mlp, layers: 1, units: {choices: [4, 8, 16]}, activation: tanh}
training:
  epochs: 2
  learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true, points: 3}
search: {seed: 5}
budget: {trials: 4}
"""

Tuner = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "spiral.yaml"
    file.write_text(SPIRAL)
    return file


@pytest.fixture
def tuner(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Tuner:
    """Runs a command line: its exit code, stdout and stderr."""
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNER_DATABASE_URL", database_url)
    monkeypatch.delenv("TUNER_ARTIFACTS", raising=False)

    def command(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


def names(db: Database) -> list[str]:
    return [study.name for study in list_studies(db)]


def test_three_methods_two_seeds_and_real_workers(tuner: Tuner, spec: Path, db: Database, tmp_path: Path) -> None:
    compare = ("compare", spec, "--seeds", 2, "--slots", 2, "--device", "cpu")
    ended = subprocess.run(
        [sys.executable, "-m", "tuner", *map(str, compare), "--format", "json"],
        env={**os.environ, "TUNER_ARTIFACTS": str(tmp_path / "trained")},
        capture_output=True,
        text=True,
        check=False,
    )
    err = ended.stderr
    assert ended.returncode == 0, err
    result = json.loads(ended.stdout)
    studies = [f"spiral.{method}.{seed}" for method in ("grid", "random", "tpe") for seed in (5, 6)]
    assert result["studies"] == studies
    assert result["unfinished"] is None
    assert "no winner" in result["note"]
    assert "4 of 9 points: a random sample of the grid" in err

    stored = {name: list_trials(db, get_study(db, name)) for name in studies}
    assert {len(trials) for trials in stored.values()} == {4}
    assert len({json.dumps(get_study(db, name).document["data"]) for name in studies}) == 1
    for row in result["methods"]:
        best = [
            max(trial.value for trial in trials if trial.value is not None)
            for name, trials in stored.items()
            if f".{row['method']}." in name
        ]
        assert (row["seeds"], row["trials"], row["epochs"]) == (2, 8, 16)
        assert (row["best_min"], row["best_max"]) == (min(best), max(best))
        assert row["best_median"] == pytest.approx(sum(best) / 2)

    files = {name: Path(path) for name, path in result["files"].items()}
    assert {path.parent for path in files.values()} == {tmp_path / "trained/comparisons/spiral"}
    lines = list(csv.DictReader(files["comparison.csv"].read_text().splitlines()))
    assert len(lines) == 24
    assert [line["finished"] for line in lines if (line["method"], line["seed"]) == ("tpe", "6")] == [
        "1",
        "2",
        "3",
        "4",
    ]
    assert {line["cumulative_epochs"] for line in lines if line["finished"] == "4"} == {"8"}

    # The same picture and table again, from the database alone.
    to = tmp_path / "elsewhere"
    code, out, _ = tuner("comparison", "show", "spiral", "--to", to)
    assert code == 0
    for name, path in files.items():
        assert (to / name).read_bytes() == path.read_bytes()
    for word in ("grid", "random", "tpe", "median", "claims no winner", "2 seeds", str(to / "anytime.svg")):
        assert word in out

    # Nothing is missing: nothing is done. With one more seed only that is made.
    assert tuner(*compare)[0] == 0
    assert not (tmp_path / "home/artifacts/workers").exists()
    code, out, _ = tuner(*compare, "--seeds", 3, "--methods", "random", "--workers", 0)
    assert code == 0
    assert "unfinished: 6 of 7 studies have ended" in out
    assert {name: list_trials(db, get_study(db, name)) for name in studies} == stored

    code, out, _ = tuner("comparison", "list", "--format", "json")
    (row,) = json.loads(out)
    assert (row["name"], row["size"], row["ended"], row["seeds"]) == ("spiral", 7, 6, 3)


def test_studies_without_workers_wait_in_an_order_that_is_fair(tuner: Tuner, spec: Path, db: Database) -> None:
    code, out, err = tuner("compare", spec, "--workers", 0, "--name", "other", "--seeds", 2, "--methods", "tpe,random")
    assert code == 0
    made = ["other.tpe.5", "other.random.5", "other.tpe.6", "other.random.6"]
    assert names(db) == made
    assert f"worker start {' '.join(made)}" in err
    assert "unfinished: 0 of 4 studies have ended" in out
    assert {get_study(db, name).document["search"]["method"] for name in made} == {"tpe", "random"}


def test_a_grid_smaller_than_the_budget_says_so(tuner: Tuner, spec: Path, db: Database) -> None:
    code, _, err = tuner("compare", spec, "--workers", 0, "--seeds", 1, "--set", "budget.trials=40")
    assert code == 0
    assert "the grid has 9 points and ends there, below the others' 40 trials" in err
    budgets = {name: get_study(db, name).budget.trials for name in names(db)}
    assert budgets == {"spiral.grid.5": 9, "spiral.random.5": 40, "spiral.tpe.5": 40}


def test_another_budget_is_given_to_all_studies(tuner: Tuner, spec: Path, db: Database) -> None:
    compare = ("compare", spec, "--workers", 0, "--methods", "random,tpe")
    assert tuner(*compare, "--seeds", 2)[0] == 0
    assert tuner(*compare, "--seeds", 1, "--set", "budget.trials=8")[0] == 0
    assert len(names(db)) == 4
    assert {get_study(db, name).budget.trials for name in names(db)} == {8}


@pytest.mark.parametrize("change", ["training.epochs=3", "search.seed=6", "data.split.seed=1"])
def test_a_changed_file_is_refused_with_the_difference(tuner: Tuner, spec: Path, db: Database, change: str) -> None:
    compare = ("compare", spec, "--workers", 0, "--seeds", 1)
    assert tuner(*compare)[0] == 0
    before = list_comparisons(db)
    code, out, err = tuner(*compare, "--set", change)
    assert (code, out) == (2, "")
    assert "--name spiral-2" in err
    assert change.partition("=")[0] in err
    assert list_comparisons(db) == before
    assert len(names(db)) == 3


FAULTS: dict[str, tuple[list[str], str]] = {
    "no points": (
        ["--set", "training.learning_rate.points=null"],
        "spiral.yaml:6: training.learning_rate: a grid needs",
    ),
    "method": (["--methods", "grid,tpee"], "no search method 'tpee'; did you mean tpe?"),
    "no method": (["--methods", ","], "name at least one of grid, random, tpe"),
    "no budget": (["--set", "budget.trials=null"], "budget: missing"),
    "long name": (["--name", "x" * 60], "too long for a comparison"),
    "bad name": (["--name", "../x"], "not a study's name"),
    "seed": (["--set", "search.seed=2147483647"], "search.seed"),
    "workers": (["--workers", "5000"], "too many at once"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_told_and_nothing_is_written(tuner: Tuner, spec: Path, db: Database, fault: str) -> None:
    options, message = FAULTS[fault]
    code, out, err = tuner("compare", spec, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert (list_comparisons(db), names(db)) == ([], [])


def test_a_study_of_that_name_that_is_another_stops_it_all(tuner: Tuner, spec: Path, db: Database) -> None:
    other = ("--name", "spiral.tpe.5", "--set", "training.epochs=7")
    assert tuner("launch", spec, "--workers", 0, *other)[0] == 0
    code, _, err = tuner("compare", spec, "--workers", 0)
    assert code == 2
    assert "another study is named 'spiral.tpe.5'" in err
    assert (list_comparisons(db), names(db)) == ([], ["spiral.tpe.5"])


def test_unknown_comparison_and_a_folder_that_cannot_be(tuner: Tuner, spec: Path, tmp_path: Path) -> None:
    assert tuner("compare", spec, "--workers", 0, "--seeds", 1)[0] == 0
    code, _, err = tuner("comparison", "show", "spirall")
    assert code == 3
    assert "did you mean 'spiral'?" in err
    code, _, err = tuner("comparison", "show", "spiral", "--to", spec / "folder")
    assert code == 6
    assert "cannot write to" in err


def test_deleted_studies_leave_a_comparison_that_says_so(tuner: Tuner, spec: Path, db: Database) -> None:
    assert tuner("compare", spec, "--workers", 0, "--seeds", 1, "--methods", "random")[0] == 0
    db.execute("DELETE FROM tuner.study")
    code, _, err = tuner("comparison", "show", "spiral")
    assert code == 3
    assert "were deleted" in err
