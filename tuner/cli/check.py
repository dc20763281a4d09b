"""`tuner check`: what a study file means and what it will cost, before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.launch import spec_arguments
from tuner.cli.output import emit_one, format_option
from tuner.cli.worker import sensible_slots

if TYPE_CHECKING:
    import torch

    from tuner.spec.study import StudySpec

TIMED_TRIALS = 3  # of those that the search begins with


@click.command("check")
@spec_arguments
@click.option("--slots", type=click.IntRange(1), metavar="N", help="Estimate the time for so many trials at a time.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="As for launch."
)
@format_option
@pass_context
def command(
    context: Context,
    spec_file: Path,
    overrides: tuple[str, ...],
    name: str | None,
    slots: int | None,
    device: str,
    format: str,
) -> None:
    """Say what SPEC means: its knobs, its grid, the sizes of its models and data, and the time that it may take.

    No database is needed and nothing is started; the data set is prepared, and a few batches are trained.
    """
    from tuner.spec.grid import Grid
    from tuner.spec.study import read_spec

    spec = read_spec(spec_file, overrides, name)
    slots = sensible_slots(slots, device)
    grid = Grid(spec.space)

    from tuner.training.data import info, prepare

    folder = prepare(spec.data, context.settings)
    data = info(folder)

    from tuner.training.preflight import model_sizes

    sizes = model_sizes(spec.space, data)
    seconds = _seconds_a_trial(spec, folder, device)
    emit_one(
        {
            "study": spec.name,
            "knobs": len(spec.space.parameters),
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
            "estimate": {"trial_seconds": seconds, "study_seconds": _of_study(spec, seconds, slots), "slots": slots},
        },
        format,
    )


def _seconds_a_trial(spec: StudySpec, folder: Path, device: str) -> float | None:
    """Of a trial that is not pruned: the mean of the first ones that the search proposes and that can be built.

    On a CPU with one thread, as workers train. None where none can be built.
    """
    import torch

    from tuner.search import SAMPLERS
    from tuner.search.history import History
    from tuner.training.errors import InfeasibleModel
    from tuner.training.preflight import seconds_per_epoch

    torch.set_num_threads(1)
    place = _device(device)
    history = History(direction=spec.objective.direction)
    seconds = []
    for number in range(min(TIMED_TRIALS, spec.budget.trials or TIMED_TRIALS)):
        point = SAMPLERS[spec.search.method](spec.space, history, spec.search.seed, number)
        try:
            seconds.append(spec.epochs * seconds_per_epoch(spec.space.resolve(point), folder, place))
        except InfeasibleModel:
            continue
    return sum(seconds) / len(seconds) if seconds else None


def _device(device: str) -> torch.device:
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


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
