import pytest

from tuner.analysis.anytime import Direction, FinishedTrial, Run, steps
from tuner.analysis.summary import summarize
from tuner.states import TrialState

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def run_of(
    *trials: tuple[TrialState, float | None], method: str = "tpe", seed: int = 0, direction: Direction = "maximize"
) -> Run:
    finished = [
        FinishedTrial(number=number, state=state, value=value, epochs=3, seconds=0.5)
        for number, (state, value) in enumerate(trials)
    ]
    return Run(study=f"s.{method}.{seed}", method=method, seed=seed, ended=True, steps=steps(finished, direction))


def test_figures_of_two_methods() -> None:
    grid, tpe = summarize(
        [
            run_of((COMPLETE, 0.7), (COMPLETE, 0.9), method="grid"),
            run_of((COMPLETE, 0.8), (PRUNED, 0.99), method="grid", seed=1),
            run_of((COMPLETE, 0.6), (FAIL, None), (PRUNED, 0.5)),
        ],
        "maximize",
    )
    assert (grid.method, grid.seeds) == ("grid", 2)
    assert (grid.best_median, grid.best_min, grid.best_max) == (pytest.approx(0.85), 0.8, 0.9)
    assert (grid.trials, grid.pruned, grid.failed, grid.epochs, grid.seconds) == (4, 1, 0, 12, 2.0)
    assert (tpe.best_median, tpe.best_min, tpe.best_max) == (0.6, 0.6, 0.6)
    assert (tpe.trials, tpe.pruned, tpe.failed, tpe.epochs, tpe.seconds) == (3, 1, 1, 9, 1.5)


def test_quartiles_from_four_seeds_on() -> None:
    runs = [run_of((COMPLETE, value), seed=seed) for seed, value in enumerate((0.1, 0.2, 0.4, 0.8, 0.9))]
    (five,) = summarize(runs, "maximize")
    assert (five.best_q1, five.best_median, five.best_q3) == (0.2, 0.4, 0.8)
    (four,) = summarize(runs[:4], "maximize")
    assert (four.best_q1, four.best_q3) == (pytest.approx(0.175), pytest.approx(0.5))
    (three,) = summarize(runs[:3], "maximize")
    assert (three.best_q1, three.best_q3) == (None, None)


def test_a_run_without_a_complete_trial_is_worse_than_any() -> None:
    runs = [
        run_of((COMPLETE, 0.5), direction="minimize"),
        run_of((FAIL, None), seed=1, direction="minimize"),
        run_of((COMPLETE, 0.3), seed=2, direction="minimize"),
    ]
    (summary,) = summarize(runs, "minimize")
    assert (summary.seeds, summary.best_min, summary.best_median, summary.best_max) == (3, 0.3, 0.5, None)


def test_a_run_that_has_not_begun_is_left_out() -> None:
    (summary,) = summarize([run_of((COMPLETE, 0.5)), run_of(seed=1)], "maximize")
    assert (summary.seeds, summary.best_median) == (1, 0.5)
    (empty,) = summarize([run_of()], "maximize")
    assert (empty.seeds, empty.best_median, empty.trials, empty.epochs) == (0, None, 0, 0)
