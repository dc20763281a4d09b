"""On two runs small enough to follow by hand."""

import math

import numpy as np
import pytest

from tuner.analysis.anytime import Direction, FinishedTrial, Run, band_of, by_method, curve, grid, steps
from tuner.states import TrialState

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
Ended = tuple[TrialState, float | None, int]  # state, value, epochs


def run_of(*trials: Ended, direction: Direction = "maximize", method: str = "tpe", seed: int = 0) -> Run:
    finished = [
        FinishedTrial(number=number, state=state, value=value, epochs=epochs, seconds=0.5 * epochs)
        for number, (state, value, epochs) in enumerate(trials)
    ]
    return Run(study=f"s.{method}.{seed}", method=method, seed=seed, ended=True, steps=steps(finished, direction))


FIRST = run_of((PRUNED, 0.99, 2), (COMPLETE, 0.7, 4), (FAIL, None, 1), (COMPLETE, 0.6, 4), (COMPLETE, 0.9, 4))
SECOND = run_of((COMPLETE, 0.8, 4), (COMPLETE, 0.85, 4), seed=1)


def test_only_complete_trials_are_found_but_all_are_work() -> None:
    assert [step.best for step in FIRST.steps] == [None, 0.7, 0.7, 0.7, 0.9]
    assert [step.epochs for step in FIRST.steps] == [2, 6, 7, 11, 15]
    assert [step.seconds for step in FIRST.steps] == [1.0, 3.0, 3.5, 5.5, 7.5]
    assert [step.trials for step in FIRST.steps] == [1, 2, 3, 4, 5]
    assert FIRST.best == 0.9


def test_lower_is_better_where_the_metric_is_minimized() -> None:
    run = run_of((COMPLETE, 0.5, 1), (PRUNED, 0.1, 1), (COMPLETE, 0.7, 1), (COMPLETE, 0.3, 1), direction="minimize")
    assert [step.best for step in run.steps] == [0.5, 0.5, 0.5, 0.3]


def test_places_are_those_where_any_run_finished_a_trial() -> None:
    assert grid([FIRST, SECOND], "epochs").tolist() == [2, 4, 6, 7, 8, 11, 15]
    assert grid([FIRST, SECOND], "trials").tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("direction", "worst"), [("maximize", -math.inf), ("minimize", math.inf)])
def test_a_curve_is_infinitely_bad_before_its_first_value_and_keeps_its_last(
    direction: Direction, worst: float
) -> None:
    run = run_of((PRUNED, 0.5, 2), (COMPLETE, 0.5, 2), direction=direction)
    assert curve(run, "epochs", np.array([0.0, 2.0, 3.0, 4.0, 99.0]), direction).tolist() == [
        worst,
        worst,
        worst,
        0.5,
        0.5,
    ]


def test_trials_without_epochs_share_a_place_and_the_last_of_them_counts() -> None:
    run = run_of((COMPLETE, 0.5, 3), (FAIL, None, 0), (COMPLETE, 0.8, 0))
    assert curve(run, "epochs", grid([run], "epochs"), "maximize").tolist() == [0.8]


def test_band_over_epochs() -> None:
    places = grid([FIRST, SECOND], "epochs")
    band = band_of([FIRST, SECOND], "epochs", places, "maximize")
    bad = -math.inf
    assert band.at.tolist() == [2, 4, 6, 7, 8, 11, 15]
    assert band.low.tolist() == [bad, bad, 0.7, 0.7, 0.7, 0.7, 0.85]  # the second run ended at 8 and keeps its 0.85
    assert band.high.tolist() == [bad, 0.8, 0.8, 0.8, 0.85, 0.85, 0.9]
    assert band.median.tolist() == pytest.approx([bad, bad, 0.75, 0.75, 0.775, 0.775, 0.875])


def test_band_ends_with_its_methods_longest_run() -> None:
    band = band_of([SECOND], "trials", grid([FIRST, SECOND], "trials"), "maximize")
    assert band.at.tolist() == [1, 2]
    assert band.median.tolist() == [0.8, 0.85]


def test_median_is_known_once_most_runs_have_a_value() -> None:
    runs = [
        run_of((COMPLETE, 0.5, 1), direction="minimize"),
        run_of((COMPLETE, 0.7, 1), direction="minimize", seed=1),
        run_of((FAIL, None, 1), direction="minimize", seed=2),
    ]
    band = band_of(runs, "trials", grid(runs, "trials"), "minimize")
    assert (band.median[0], band.low[0], band.high[0]) == (0.7, 0.5, math.inf)


def test_methods_keep_their_order() -> None:
    runs = [run_of(method="tpe"), run_of(method="grid"), run_of(method="tpe", seed=1)]
    assert {method: [run.seed for run in members] for method, members in by_method(runs).items()} == {
        "tpe": [0, 1],
        "grid": [0],
    }
    assert list(by_method(runs)) == ["tpe", "grid"]


def test_run_without_trials() -> None:
    run = run_of()
    assert run.best is None
    assert band_of([run], "epochs", grid([run], "epochs"), "maximize").at.size == 0
