"""`tuner check`: what it says of a file; it needs no database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_what_a_file_means(here: Any, spec_file: Path) -> None:
    here.environment["TUNER_DATABASE_URL"] = "postgresql://127.0.0.1:9/nowhere"
    done = here.run("check", spec_file, "--slots", 2, "--set", "budget.trials=1000", "--format", "json")
    assert done.code == 0, done.err
    said = done.json
    assert (said["knobs"], said["grid_points"], said["no_grid_for"]) == (3, 12, [])
    assert said["data"]["name"] == "spiral"
    assert (said["data"]["train"], said["data"]["validation"], said["data"]["test"]) == (100, 50, 50)
    # one layer of 8: 2 * 8 + 8 and 8 * 2 + 2; two of 16: 2 * 16 + 16, 16 * 16 + 16 and 16 * 2 + 2
    assert said["model_parameters"] == {"smallest": 42, "largest": 354}
    assert said["infeasible"] == []
    estimate = said["estimate"]
    assert estimate["study_seconds"] == pytest.approx(500 * estimate["trial_seconds"])


def test_corners_that_cannot_be_built_and_ranges_without_a_grid_are_named(here: Any, spec_file: Path) -> None:
    spec_file.write_text("""\
study: corners
data: {name: digits}
model: {family: cnn, layers: {low: 1, high: 8}, pooling: max}
training: {epochs: 1, learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}
budget: {seconds: 60}
""")
    done = here.run("check", spec_file)
    assert done.code == 0, done.err
    assert "layers: 8" in done.out
    assert "no grid for       learning_rate" in done.out


def test_faults_are_told_as_by_launch(cli: Any, spec_file: Path) -> None:
    spec_file.write_text(spec_file.read_text().replace("layers", "leyers").replace("name: spiral", "name: spirals"))
    done = cli("check", spec_file)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 2
