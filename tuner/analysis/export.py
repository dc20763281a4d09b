"""A comparison as a CSV file: one line for each finished trial, in the order in which a run's trials finished."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from tuner.analysis.anytime import Run

HEADER = (
    "method",
    "seed",
    "finished",  # place in the order of finishing, from 1
    "number",
    "state",
    "value",
    "best_so_far",
    "cumulative_epochs",
    "cumulative_seconds",
)


def to_csv(runs: Iterable[Run]) -> str:
    """The text of the file; a value that does not exist is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for run in runs:
        for step in run.steps:
            trial = step.trial
            row = (run.method, run.seed, step.trials, trial.number, trial.state.value, trial.value)
            writer.writerow((*row, step.best, step.epochs, f"{step.seconds:.3f}"))
    return text.getvalue()
