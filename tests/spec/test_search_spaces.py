"""The ready files: right, usable as the README uses them, and between them an example of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.spec.grid import Grid
from tuner.spec.study import read_spec

FOLDER = Path(__file__).parents[2] / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_corner_is_a_trial(file: Path) -> None:
    spec = read_spec(file)
    assert spec.name == file.stem.replace("_", "-")
    grid = Grid(spec.space)
    assert not grid.unlisted
    for index in (0, grid.size // 3, grid.size - 1):
        assert spec.space.resolve(grid.point(index)).training.epochs == spec.epochs


@pytest.mark.parametrize("method", ["grid", "random", "tpe"])
def test_the_first_study_can_be_compared(method) -> None:
    spec = read_spec(FOLDER / "digits_cnn.yaml").with_search(name="digits-cnn.1", method=method, seed=1)
    assert spec.budget.trials == 40


def test_the_first_study_can_be_made_short() -> None:
    assert read_spec(FOLDER / "digits_cnn.yaml", ["training.epochs=2"], name="quick").epochs == 2


def test_together_they_show_the_whole_format() -> None:
    text = "\n".join(file.read_text() for file in FILES)
    pruners = ("median", "asha", "hyperband", "patient", "none")
    words = ("low", "log", "step", "points", "choices", "when", "value", "each", *pruners, "total_epochs", "seconds")
    assert [word for word in words if f"{word}:" not in text and f": {word}" not in text] == []
