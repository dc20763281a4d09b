"""Comparisons on a real database, one of them trained by real workers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.site import Cli
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


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    file = tmp_path / "spiral.yaml"
    file.write_text(SPIRAL)
    return file


def names(db: Database) -> list[str]:
    return [study.name for study in list_studies(db)]


def test_three_methods_two_seeds_and_real_workers(cli: Cli, spec_file: Path, db: Database, tmp_path: Path) -> None:
    compare = ("compare", spec_file, "--seeds", 2, "--slots", 2, "--device", "cpu")
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
    done = cli("comparison", "show", "spiral", "--to", to)
    assert done.code == 0
    for name, path in files.items():
        assert (to / name).read_bytes() == path.read_bytes()
    for word in ("grid", "random", "tpe", "median", "claims no winner", "2 seeds", str(to / "anytime.svg")):
        assert word in done.out

    # Nothing is missing: nothing is done. With one more seed only that is made.
    assert cli(*compare).code == 0
    assert list((tmp_path / "home/artifacts/workers").iterdir()) == []
    done = cli(*compare, "--seeds", 3, "--methods", "random", "--workers", 0)
    assert done.code == 0
    assert "unfinished: 6 of 7 studies have ended" in done.out
    assert {name: list_trials(db, get_study(db, name)) for name in studies} == stored

    done = cli("comparison", "list", "--format", "json")
    (row,) = done.json
    assert (row["name"], row["size"], row["ended"], row["seeds"]) == ("spiral", 7, 6, 3)


def test_studies_without_workers_wait_in_an_order_that_is_fair(cli: Cli, spec_file: Path, db: Database) -> None:
    done = cli("compare", spec_file, "--workers", 0, "--name", "other", "--seeds", 2, "--methods", "tpe,random")
    assert done.code == 0
    made = ["other.tpe.5", "other.random.5", "other.tpe.6", "other.random.6"]
    assert names(db) == made
    assert f"worker start {' '.join(made)}" in done.err
    assert "unfinished: 0 of 4 studies have ended" in done.out
    assert {get_study(db, name).document["search"]["method"] for name in made} == {"tpe", "random"}


def test_a_grid_smaller_than_the_budget_says_so(cli: Cli, spec_file: Path, db: Database) -> None:
    done = cli("compare", spec_file, "--workers", 0, "--seeds", 1, "--set", "budget.trials=40")
    assert done.code == 0
    assert "the grid has 9 points and ends there, below the others' 40 trials" in done.err
    budgets = {name: get_study(db, name).budget.trials for name in names(db)}
    assert budgets == {"spiral.grid.5": 9, "spiral.random.5": 40, "spiral.tpe.5": 40}


@pytest.mark.parametrize("methods", ["grid,random", "random,grid"])
def test_without_a_budget_the_size_of_the_grid_is_that_of_all(
    cli: Cli, spec_file: Path, db: Database, methods: str
) -> None:
    spec_file.write_text(SPIRAL.replace("budget: {trials: 4}\n", ""))
    done = cli("compare", spec_file, "--workers", 0, "--seeds", 1, "--methods", methods)
    assert done.code == 0, done.err
    assert "the file names no budget: each study has as many trials as the grid has points, 9" in done.err
    assert {get_study(db, name).budget.trials for name in names(db)} == {9}


def test_a_tpe_that_only_begins_says_that_it_is_random_search(cli: Cli, spec_file: Path) -> None:
    compare = ("compare", spec_file, "--workers", 0, "--seeds", 1, "--methods", "random,tpe")
    says = "the first 10 are random search's"
    assert f"{says}: with 4 trials the same as random\n" in cli(*compare).err
    assert f"{says}: with 10 trials the same as random\n" in cli(*compare, "--set", "budget.trials=10").err
    assert f"{says}\n" in cli(*compare, "--set", "budget.trials=11").err


def test_another_budget_is_given_to_all_studies(cli: Cli, spec_file: Path, db: Database) -> None:
    compare = ("compare", spec_file, "--workers", 0, "--methods", "random,tpe")
    assert cli(*compare, "--seeds", 2).code == 0
    assert cli(*compare, "--seeds", 1, "--set", "budget.trials=8").code == 0
    assert len(names(db)) == 4
    assert {get_study(db, name).budget.trials for name in names(db)} == {8}


@pytest.mark.parametrize("change", ["training.epochs=3", "search.seed=6", "data.split.seed=1"])
def test_a_changed_file_is_refused_with_the_difference(cli: Cli, spec_file: Path, db: Database, change: str) -> None:
    compare = ("compare", spec_file, "--workers", 0, "--seeds", 1)
    assert cli(*compare).code == 0
    before = list_comparisons(db)
    done = cli(*compare, "--set", change)
    assert (done.code, done.out) == (2, "")
    assert "--name spiral-2" in done.err
    assert change.partition("=")[0] in done.err
    assert list_comparisons(db) == before
    assert len(names(db)) == 3


FAULTS: dict[str, tuple[list[str], str]] = {
    "no points": (
        ["--set", "training.learning_rate.points=null"],
        "spiral.yaml:6: training.learning_rate: a grid needs",
    ),
    "method": (["--methods", "grid,tpee"], "no search method 'tpee'; did you mean tpe?"),
    "no method": (["--methods", ","], "name at least one of grid, random, tpe"),
    "no budget": (["--methods", "random,tpe", "--set", "budget.trials=null"], "budget: missing"),
    "long name": (["--name", "x" * 60], "too long for a comparison"),
    "bad name": (["--name", "../x"], "not a study's name"),
    "seed": (["--set", "search.seed=2147483647"], "search.seed"),
    "workers": (["--workers", "5000"], "too many at once"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_told_and_nothing_is_written(cli: Cli, spec_file: Path, db: Database, fault: str) -> None:
    options, message = FAULTS[fault]
    done = cli("compare", spec_file, *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert (list_comparisons(db), names(db)) == ([], [])


def test_a_study_of_that_name_that_is_another_stops_it_all(cli: Cli, spec_file: Path, db: Database) -> None:
    other = ("--name", "spiral.tpe.5", "--set", "training.epochs=7")
    assert cli("launch", spec_file, "--workers", 0, *other).code == 0
    done = cli("compare", spec_file, "--workers", 0)
    assert done.code == 2
    assert "another study is named 'spiral.tpe.5'" in done.err
    assert (list_comparisons(db), names(db)) == ([], ["spiral.tpe.5"])


def test_unknown_comparison_and_a_folder_that_cannot_be(cli: Cli, spec_file: Path, tmp_path: Path) -> None:
    assert cli("compare", spec_file, "--workers", 0, "--seeds", 1).code == 0
    done = cli("comparison", "show", "spirall")
    assert done.code == 3
    assert "did you mean 'spiral'?" in done.err
    done = cli("comparison", "show", "spiral", "--to", spec_file / "folder")
    assert done.code == 6
    assert "cannot write to" in done.err


def test_deleted_studies_leave_a_comparison_that_says_so(cli: Cli, spec_file: Path, db: Database) -> None:
    compare = ("compare", spec_file, "--workers", 0, "--seeds", 2, "--methods", "grid,random")
    assert cli(*compare).code == 0
    assert cli("study", "delete", "spiral.grid.6", "--yes").code == 0
    done = cli("comparison", "show", "spiral")
    assert done.code == 0
    assert "missing: spiral.grid.6\n" in done.out
    assert json.loads(cli("comparison", "show", "spiral", "--format", "json").out)["missing"] == ["spiral.grid.6"]

    for study in names(db):
        assert cli("study", "delete", study, "--yes").code == 0
    done = cli("comparison", "show", "spiral")
    assert done.code == 3
    assert "were deleted" in done.err

    # Nothing is left to protect: the name is free for a changed file.
    done = cli(*compare, "--set", "training.epochs=3")
    assert done.code == 0
    assert "missing" not in done.out


def test_a_limit_of_failures_does_not_take_the_grid_s_size_from_the_others(cli: Cli, spec_file: Path) -> None:
    spec_file.write_text(SPIRAL.replace("budget: {trials: 4}", "budget: {failures: 5}"))
    done = cli("compare", spec_file, "--workers", 0, "--seeds", 1, "--methods", "grid,random")
    assert done.code == 0, done.err
    assert "each study has as many trials as the grid has points" in done.err


def test_a_comparison_is_deleted_with_its_studies_and_their_files(
    cli: Cli, spec_file: Path, db: Database, tmp_path: Path
) -> None:
    assert cli("compare", spec_file, "--workers", 0, "--seeds", 1, "--methods", "grid,random").code == 0
    assert cli("launch", spec_file, "--workers", 0, "--name", "spiral.mine").code == 0
    artifacts = tmp_path / "home/artifacts"
    folders = [artifacts / get_study(db, name).folder for name in names(db)]
    for folder in folders:
        (folder / "0").mkdir(parents=True)

    done = cli("comparison", "delete", "spiral")
    assert (done.code, done.out) == (2, "")
    assert "nothing was deleted: say --yes to delete comparison spiral with 2 studies and 0 trials" in done.err
    done = cli("comparison", "delete", "spiral", "--dry-run")
    assert (done.code, done.out) == (0, "would delete comparison spiral with 2 studies and 0 trials\n")
    assert len(names(db)) == 3

    assert cli("comparison", "delete", "spiral", "--yes").code == 0
    assert (list_comparisons(db), names(db)) == ([], ["spiral.mine"])
    assert [folder.exists() for folder in folders] == [False, False, True]
    assert cli("comparison", "delete", "spiral", "--yes").code == 3
