"""Supervisors and children that are killed at any moment: no trial is lost, doubled or changed."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.chaos import checks
from tests.chaos.harness import Arena, Figures, Form, until
from tests.chaos.killer import Killer
from tests.chaos.stub import Behaviour
from tuner.spec.grid import Grid
from tuner.storage.studies import StudyRecord
from tuner.training.loop import CHECKPOINT_SECONDS
from tuner.worker.run import TRAINING


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Epochs that were trained more than once, read off the logs of the trials."""

    epochs: int
    most_seconds: float  # that one attempt spent on epochs which an earlier one had trained
    longest_epoch: float  # seconds


def repeated(arena: Arena, study: StudyRecord) -> Repeated:
    again: list[list[float]] = []  # for each attempt, the seconds of each epoch that it repeated
    longest = 0.0
    for trial in (arena.artifacts / study.folder).iterdir():
        trained: set[str] = set()
        for log in sorted(trial.glob("*.log"), key=lambda log: int(log.stem)):
            epochs = re.findall(r"epoch (\d+)  .*  ([\d.]+) s$", log.read_text(), re.MULTILINE)
            again.append([float(seconds) for epoch, seconds in epochs if epoch in trained])
            trained |= {epoch for epoch, _ in epochs}
            longest = max([longest, *(float(seconds) for _, seconds in epochs)])
    return Repeated(epochs=sum(map(len, again)), most_seconds=max(map(sum, again), default=0.0), longest_epoch=longest)


def test_random_kills(arena: Arena, form: Form, figures: Figures) -> None:
    """What is repeated is bounded by the time between two checkpoints: here 0.4 s of work."""
    trials, workers, kills, seeds = form((20, 4, 6, 1), (500, 8, 200, 5))
    epochs = 20
    behaviour = Behaviour(epoch_seconds=0.05, checkpoint_epochs=8)
    total, most = Counter[str](), 0.0
    for seed in range(seeds):
        size = {"budget__trials": trials, "training__epochs": epochs, "search__seed": seed}
        undisturbed = arena.study(name=f"undisturbed-{seed}", **size)
        study = arena.study(name=f"killed-{seed}", **size)
        arena.finish(undisturbed.name, workers=2)
        killer = Killer(arena, study, behaviour, random.Random(form.seed + seed))
        killer.start(workers)
        killer.kill(kills, trials * epochs)
        killer.until_finished()
        checks.assert_whole(arena, study, trials, epochs)
        checks.assert_equal(arena, study, undisturbed)
        again = repeated(arena, study)
        assert again.most_seconds <= CHECKPOINT_SECONDS
        total.update(trials=trials, supervisors=killer.supervisors, children=killer.children, repeated=again.epochs)
        most = max(most, again.most_seconds)
    until(lambda: not arena.orphans(), "children end with their supervisors")
    figures.update(
        trials=total["trials"],
        killed_supervisors=total["supervisors"],
        killed_children=total["children"],
        epochs_repeated=total["repeated"],
        at_most_by_a_kill=f"{most:.2f} s",
    )


def test_stacks_under_kills(arena: Arena, form: Form, figures: Figures) -> None:
    """Slots that train several trials of one shape at once: a death concerns them all, and blames none of them."""
    trials, workers, kills = form((30, 3, 5), (500, 8, 100))
    epochs = 20
    size = {"budget__trials": trials, "training__epochs": epochs, "model__units": "{choices: [16, 32, 64]}"}
    undisturbed, study = (arena.study(name=name, **size) for name in ("undisturbed", "killed"))
    arena.finish(undisturbed.name, workers=2)
    killer = Killer(arena, study, Behaviour(epoch_seconds=0.1, members=6), form.random)
    killer.start(workers)
    killer.kill(kills, trials * epochs)
    killer.until_finished()
    checks.assert_whole(arena, study, trials, epochs)
    checks.assert_equal(arena, study, undisturbed)
    halved, largest = arena.rows(
        "SELECT count(*) FILTER (WHERE largest_stack IS NOT NULL), max(shared) FROM tuner.lease WHERE study_id = %(s)s",
        s=study.study_id,
    )[0]
    assert largest > 1
    figures.update(
        trials=trials,
        killed_supervisors=killer.supervisors,
        killed_children=killer.children,
        in_smaller_stacks=halved,
        deaths=checks.deaths(arena, study),
    )


GRID = """
study: grid
data: {name: spiral}
model:
  family: mlp
  units: {choices: [8, 12, 16, 24, 32, 48, 64, 96, 128, 192]}
  dropout: {low: 0.0, high: 0.45, step: 0.05}
training: {epochs: 4, learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true, points: 10}}
search: {method: grid}
budget: {}
"""


def test_grid_under_kills(arena: Arena, form: Form, figures: Figures) -> None:
    workers, kills, changes = form(
        (4, 4, {"model__units": "{choices: [8, 16]}", "model__dropout": "{low: 0.0, high: 0.1, step: 0.1}"}),
        (16, 50, {}),
    )
    study = arena.study(GRID, "grid", **changes)
    points = Grid(study.spec.space).size
    killer = Killer(arena, study, Behaviour(epoch_seconds=0.05, checkpoint_epochs=1), form.random)
    killer.start(workers)
    killer.kill(kills, 4 * points)
    killer.until_finished()
    checks.assert_whole(arena, study, points, 4)
    distinct = checks.distinct_points(arena, study)
    assert distinct == points
    figures.update(
        points=points, distinct=distinct, killed_supervisors=killer.supervisors, killed_children=killer.children
    )


SPIRAL = """
study: spiral
data: {name: spiral, points: 40000}
model: {family: mlp, layers: 2, units: 32, dropout: {low: 0.0, high: 0.4}}
training: {epochs: 8, batch_size: 32, learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}
search: {method: random, seed: 3}
budget: {trials: 1}
"""


@pytest.mark.parametrize(("engine", "kills"), [("single", 25), ("stacks", 6)])
def test_random_kills_of_a_real_training(arena: Arena, form: Form, figures: Figures, engine: str, kills: int) -> None:
    """With torch: curves and values of trials that were resumed are those of trials that nobody disturbed."""
    if not form.full:
        pytest.skip("in the full form only; tests/worker/test_deaths.py is its short one")
    trials, workers = 40, 3
    undisturbed = arena.study(SPIRAL, "undisturbed", budget__trials=trials, training__engine=engine)
    study = arena.study(SPIRAL, "killed", budget__trials=trials, training__engine=engine)
    arena.finish(undisturbed.name, workers=1, slots=2, training=TRAINING)
    killer = Killer(arena, study, Behaviour(), form.random, {"training": TRAINING})
    killer.start(workers)
    killer.kill(kills, 8 * trials)
    killer.until_finished()
    checks.assert_whole(arena, study, trials, 8)
    checks.assert_equal(arena, study, undisturbed)
    again = repeated(arena, study)
    # An epoch may be trained while the pointer to a checkpoint is on its way.
    assert again.most_seconds <= CHECKPOINT_SECONDS + again.longest_epoch
    figures.update(
        trials=trials,
        engine=engine,
        killed_supervisors=killer.supervisors,
        killed_children=killer.children,
        epochs_repeated=again.epochs,
        at_most_by_a_kill=f"{again.most_seconds:.2f} s",
    )
