"""`tuner check`: what a study file means and what it will cost, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import duration, emit_one, format_option
from tuner.cli.slots import device_option, sensible_slots, slots_option
from tuner.cli.spec_file import SpecFile, spec_arguments

if TYPE_CHECKING:
    import torch

    from tuner.spec.study import StudySpec

TIMED_TRIALS = 3  # of those that the search begins with


@click.command("check", short_help="Say what a study file means and costs.")
@spec_arguments
@slots_option
@device_option
@format_option
@pass_context
def command(context: Context, spec_file: SpecFile, slots: int | None, device: str, format: str) -> None:
    """Say what SPEC means: its parameters, its grid, the sizes of its models and data, and the time that it may take.

    No database is needed and nothing is started; the data set is prepared, and a few batches are trained.
    """
    from tuner.spec.grid import Grid

    spec = spec_file.read()
    slots = sensible_slots(slots, device)
    grid = Grid(spec.space)

    from tuner.cli.advice import warnings
    from tuner.training.data import info, prepare
    from tuner.training.device import choose_device
    from tuner.training.preflight import model_sizes

    place = choose_device(device)
    folder = prepare(spec.data, context.settings)
    data = info(folder)
    sizes = model_sizes(spec.space, data)
    seconds = _seconds_a_trial(spec, folder, place)
    known = {
        "study": spec.name,
        "searched_parameters": len({parameter.path for parameter in spec.space.parameters}),
        "grid_points": grid.size or None,
        "no_grid_for": [parameter.name for parameter in grid.unlisted],
        "search": f"{spec.search.method}, seed {spec.search.seed}, pruner {spec.search.pruner.name}",
        "data": {
            "name": spec.data.name,
            "task": data.task,
            "example": " x ".join(map(str, data.input_shape)),
            "outputs": data.outputs,
            **data.sizes,
        },
        "baselines": data.baselines.get("validation", {}),
        "model_parameters": {"smallest": sizes.smallest, "largest": sizes.largest},
        "infeasible": list(sizes.infeasible),
        "warnings": list(warnings(spec)),
    }
    estimate = {
        "trial_seconds": seconds,
        "study_seconds": _of_study(spec, seconds, slots),
        "slots": slots,
        "device": place.type,
    }
    if format == "table":
        told = {key: value for key, value in known.items() if value not in (None, [], {})}
        emit_one({**told, "time": _in_words(estimate)}, format)
    else:
        emit_one({**known, "estimate": estimate}, format)


def _in_words(estimate: Mapping[str, Any]) -> str:
    """`a trial: 4.7 s; the study: at most 1 m 34 s with 2 slots, on cpu, if nothing is pruned`."""
    if estimate["trial_seconds"] is None:
        return f"unknown: none of the first {TIMED_TRIALS} models can be built"
    study = "" if estimate["study_seconds"] is None else f"; the study: at most {duration(estimate['study_seconds'])}"
    slots = "1 slot" if estimate["slots"] == 1 else f"{estimate['slots']} slots"
    return (
        f"a trial: {duration(estimate['trial_seconds'])}{study} with {slots}, on {estimate['device']}, "
        "if nothing is pruned"
    )


def _seconds_a_trial(spec: StudySpec, folder: Path, device: torch.device) -> float | None:
    """Of a trial that is not pruned: the mean of the first ones that the search proposes and that can be built.

    With one thread, as workers train. None where none can be built.
    """
    from tuner.search import SAMPLERS
    from tuner.search.history import History
    from tuner.training.errors import InfeasibleModel
    from tuner.training.preflight import seconds_per_trial
    from tuner.training.warmup import warm_up

    warm_up()
    history = History(direction=spec.objective.direction)
    seconds = []
    for number in range(min(TIMED_TRIALS, spec.budget.trials or TIMED_TRIALS)):
        point = SAMPLERS[spec.search.method](spec.space, history, spec.search.seed, number)
        try:
            seconds.append(seconds_per_trial(spec.space.resolve(point), folder, device))
        except InfeasibleModel:
            continue
    return sum(seconds) / len(seconds) if seconds else None


def _of_study(spec: StudySpec, seconds: float | None, slots: int) -> float | None:
    """Seconds until the nearest limit of the budget is reached, if no trial is pruned."""
    if seconds is None:
        return None
    limits = {
        "trials": spec.budget.trials and spec.budget.trials * seconds,
        "total_epochs": spec.budget.total_epochs and spec.budget.total_epochs * seconds / spec.epochs,
        "seconds": spec.budget.seconds,
    }
    return min(limit for limit in limits.values() if limit) / slots
