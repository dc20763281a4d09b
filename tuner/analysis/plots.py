"""Anytime curves as a picture: what each method had found after so much work.

Two panels share the axis of values: epochs trained and trials finished. A method is a median over its seeds within the
band from its worst to its best seed. Drawn with matplotlib's objects, never through pyplot's global state; the same
runs give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.anytime import Axis, Band, Direction, Run, band_of, by_method, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, apart for every kind of colour vision; dashes tell the curves apart once more.
STYLES: tuple[tuple[str, Any], ...] = (
    ("#0072B2", "solid"),
    ("#D55E00", (0, (6, 1.5))),
    ("#009E73", (0, (2, 1))),
    ("#CC79A7", (0, (6, 1.5, 1.5, 1.5))),
)
INK, FAINT, GRID = "#222222", "#6f6f6f", "#e6e6e6"
SETTLED = 0.2  # share of an axis behind which all bands lie within the picture
LABEL_GAP = 0.06  # of the panel's height, between the names of two curves
INCHES = (10.0, 4.7)
PIXELS_PER_INCH = 160

LONG_NAMES = {  # of metrics whose own name says too little
    "accuracy": "accuracy (share correct)",
    "mse": "mean squared error",
    "mae": "mean absolute error",
}
WORK: dict[Axis, str] = {
    "epochs": "epochs trained, those of pruned and failed trials included",
    "trials": "trials finished, pruned and failed ones included",
}


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What the picture says of its runs."""

    comparison: str
    metric: str
    direction: Direction
    note: str = ""  # such as: unfinished


def draw(runs: Sequence[Run], heading: Heading) -> Figure:
    """A figure with a panel for epochs and one for trials; runs without a finished trial are left out."""
    from matplotlib.figure import Figure

    methods = by_method(run for run in runs if run.steps)
    figure = Figure(figsize=INCHES, facecolor="white")
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.085, right=0.872, top=0.79, bottom=0.125, wspace=0.24)
    drawn = {
        axis: {
            method: band_of(members, axis, grid(runs, axis), heading.direction) for method, members in methods.items()
        }
        for axis in WORK
    }
    limits = _limits(drawn)
    for axes, (axis, bands) in zip(panels, drawn.items(), strict=True):
        axes.set_ylim(*limits)
        _draw_panel(axes, axis, bands)
    panels[0].set_ylabel(f"best validation {LONG_NAMES.get(heading.metric, heading.metric)}", color=INK)
    _write_heading(figure, methods, heading)
    return figure


def to_svg(figure: Figure) -> bytes:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "tuner"}):  # otherwise ids, and so the bytes, differ each time
        return _saved(figure, format="svg", metadata={"Date": None})


def to_png(figure: Figure) -> bytes:
    return _saved(figure, format="png", dpi=PIXELS_PER_INCH)


def _saved(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, **options)
    return file.getvalue()


def _draw_panel(axes: Axes, axis: Axis, bands: Mapping[str, Band]) -> None:
    from matplotlib.ticker import MaxNLocator

    end = max((band.at[-1] for band in bands.values()), default=0) or 1  # no epoch may have been trained
    axes.set_xlim(0, end)
    names: list[_Name] = []
    for (method, band), (color, dashes) in zip(bands.items(), cycle(STYLES), strict=False):
        low, high = _finite(band.low), _finite(band.high)
        axes.fill_between(band.at, low, high, step="post", color=color, alpha=0.13, linewidth=0)
        for edge in (low, high):
            axes.step(band.at, edge, where="post", color=color, linewidth=0.6, alpha=0.45)
        axes.step(band.at, _finite(band.median), where="post", color=color, linestyle=dashes, linewidth=1.9)
        if np.isfinite(band.median[-1]):
            names.append(_Name(text=method, color=color, at=band.at[-1], value=band.median[-1]))
    _write_names(axes, names, values=axis == "trials")
    axes.set_xlabel(WORK[axis], color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.tick_params(colors=FAINT, labelcolor=INK, length=3)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


@dataclass(frozen=True, kw_only=True)
class _Name:
    text: str
    color: str
    at: float  # where its curve ends
    value: float


def _write_names(axes: Axes, names: Sequence[_Name], *, values: bool) -> None:
    """Names the curves beside the panel, each at the height of its end if there is room."""
    low, high = axes.get_ylim()
    ordered = sorted(names, key=lambda name: name.value)
    heights = spread([(name.value - low) / (high - low) for name in ordered], LABEL_GAP)
    for name, height in zip(ordered, heights, strict=True):
        axes.plot(name.at, name.value, "o", color=name.color, markersize=4.5, clip_on=False, zorder=3)
        axes.annotate(
            f"{name.text}  {name.value:.4g}" if values else name.text,
            xy=(name.at, name.value),
            xytext=(1.035, height),
            textcoords="axes fraction",
            color=name.color,
            fontsize=9.5,
            va="center",
            arrowprops={"arrowstyle": "-", "color": name.color, "linewidth": 0.7, "alpha": 0.6, "shrinkB": 3},
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved apart to at least a gap, as little as may be; groups keep their middle.

    >>> [round(height, 2) for height in spread([0.5, 0.5, 0.9], gap=0.1)]
    [0.45, 0.55, 0.9]
    """
    groups: list[list[float]] = []  # of heights that stand together
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], gap) - _top(groups[-2], gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group, gap) + place * gap for group in groups for place in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - (len(group) - 1) * gap / 2


def _top(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + (len(group) - 1) * gap / 2


def _limits(drawn: Mapping[Axis, Mapping[str, Band]]) -> tuple[float, float]:
    """The values to show: all bands behind the first steps, whose bad values would flatten what comes after."""
    shown: list[float] = []
    for bands in drawn.values():
        end = max((band.at[-1] for band in bands.values()), default=0.0)
        for band in bands.values():
            values = np.concatenate([edge[band.at >= SETTLED * end] for edge in (band.low, band.median, band.high)])
            shown += values[np.isfinite(values)].tolist()
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def _write_heading(figure: Figure, methods: Mapping[str, Sequence[Run]], heading: Heading) -> None:
    counts = sorted({len(runs) for runs in methods.values()})
    better = "higher" if heading.direction == "maximize" else "lower"
    match counts:
        case []:
            says = "no trial has finished"
        case [1]:
            says = "one seed a method"
        case [*_, most]:
            seeds = f"{counts[0]} to {most}" if len(counts) > 1 else str(most)
            says = f"median over {seeds} seeds, shaded from the worst seed to the best"
    line = "; ".join(filter(None, (says, f"{better} is better", heading.note)))
    figure.text(0.02, 0.925, f"{heading.comparison}: best value found so far", color=INK, fontsize=13.5, weight="bold")
    figure.text(0.02, 0.862, line, color=FAINT, fontsize=10)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Infinities as gaps."""
    return np.where(np.isfinite(values), values, np.nan)
