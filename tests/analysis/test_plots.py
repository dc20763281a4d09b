from __future__ import annotations

import sys
from itertools import pairwise

import pytest

from tuner.analysis.anytime import Direction, FinishedTrial, Run, steps
from tuner.analysis.plots import Heading, draw, spread, to_png, to_svg
from tuner.states import TrialState


def run_of(method: str, seed: int, values: list[float], direction: Direction = "maximize", epochs: int = 5) -> Run:
    trials = [
        FinishedTrial(number=number, state=TrialState.COMPLETE, value=value, epochs=epochs, seconds=1.0)
        for number, value in enumerate(values)
    ]
    return Run(study=f"s.{method}.{seed}", method=method, seed=seed, ended=True, steps=steps(trials, direction))


RUNS = [
    run_of("grid", 0, [0.1, 0.80, 0.85, 0.90, 0.90, 0.91, 0.92, 0.93, 0.93, 0.93]),
    run_of("grid", 1, [0.2, 0.82, 0.84, 0.88, 0.90, 0.91, 0.91, 0.91, 0.91, 0.91]),
    run_of("tpe", 0, [0.5, 0.70, 0.91, 0.96, 0.96, 0.97, 0.97, 0.97, 0.97, 0.98]),
    run_of("tpe", 1, [0.6, 0.75, 0.90, 0.95, 0.95, 0.95, 0.95, 0.95, 0.96, 0.96]),
]
HEADING = Heading(comparison="digits-cnn", metric="accuracy", direction="maximize")


def test_axes_say_what_they_show_and_curves_carry_their_names() -> None:
    figure = draw(RUNS, HEADING)
    epochs, trials = figure.axes
    assert "epochs trained" in epochs.get_xlabel()
    assert "trials finished" in trials.get_xlabel()
    assert "accuracy" in epochs.get_ylabel()
    assert (epochs.get_xlim(), trials.get_xlim()) == ((0, 50), (0, 10))
    assert {text.get_text() for text in epochs.texts} == {"grid", "tpe"}
    assert {text.get_text() for text in trials.texts} == {"grid  0.92", "tpe  0.97"}
    heading = " ".join(text.get_text() for text in figure.texts)
    assert "digits-cnn" in heading
    assert "median over 2 seeds" in heading
    assert "higher is better" in heading


def test_the_first_bad_values_do_not_flatten_the_rest() -> None:
    low, high = draw(RUNS, HEADING).axes[0].get_ylim()
    assert 0.6 < low < 0.75
    assert 0.98 < high < 1.0


def test_less_is_better() -> None:
    heading = Heading(comparison="c", metric="mse", direction="minimize", note="unfinished: 1 of 2 studies have ended")
    figure = draw([run_of("random", 0, [0.9, 0.1, 0.2], "minimize")], heading)
    said = " ".join(text.get_text() for text in figure.texts)
    assert "lower is better" in said
    assert "one seed a method" in said
    assert "unfinished" in said
    (curve,) = [line for line in figure.axes[1].lines if line.get_linewidth() > 1 and len(line.get_xdata()) == 3]
    assert list(curve.get_ydata()) == [0.9, 0.1, 0.1]


def test_the_same_runs_give_the_same_bytes() -> None:
    first, second = draw(RUNS, HEADING), draw(RUNS, HEADING)
    assert to_svg(first) == to_svg(second)
    assert to_png(first) == to_png(second)


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [run_of("tpe", 0, [])],
        [run_of("tpe", 0, [0.5], epochs=0)],
        [run_of("tpe", 0, [0.0]), run_of("grid", 0, [0.0])],
        [run_of(f"method-{number}", 0, [0.1 * number]) for number in range(6)],
    ],
)
def test_strange_comparisons_are_drawn_too(runs: list[Run]) -> None:
    assert to_png(draw(runs, HEADING)).startswith(b"\x89PNG")


def test_a_method_that_found_nothing_has_no_curve() -> None:
    failed = [FinishedTrial(number=0, state=TrialState.FAIL, value=None, epochs=2, seconds=1.0)]
    nothing = Run(study="s.tpe.0", method="tpe", seed=0, ended=True, steps=steps(failed, "maximize"))
    figure = draw([run_of("grid", 0, [0.5, 0.6]), nothing], HEADING)
    assert [text.get_text() for text in figure.axes[0].texts] == ["grid"]


def test_pyplots_global_state_is_left_alone() -> None:
    to_png(draw(RUNS, HEADING))
    assert "matplotlib.pyplot" not in sys.modules


def test_names_keep_their_order_and_a_distance() -> None:
    heights = spread([0.1, 0.11, 0.12, 0.5, 0.52, 0.9], gap=0.06)
    assert all(above - below >= 0.06 - 1e-9 for below, above in pairwise(heights))
    assert heights[1] == pytest.approx(0.11)  # the middle of the three that were moved apart
    assert heights[-1] == 0.9
