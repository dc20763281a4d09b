"""`tuner check`: what a study file means and what it will cost, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import Column, clock, duration, emit, emit_one, format_option, show, size
from tuner.cli.slots import check_device, device_option, sensible_slots, slots_option, visible_gpus
from tuner.cli.spec_file import SpecFile, spec_arguments

if TYPE_CHECKING:
    from tuner.spec.config import TrialConfig
    from tuner.spec.study import StudySpec
    from tuner.training.preflight import Corner, Preflight

SAMPLED_TRIALS = 3  # of those that the search begins with: what trials take on average
WORTHWHILE_GAIN = 1.2  # times as fast; less is not worth a thought about precision


@click.command("check", short_help="Say what a study file means and costs.")
@spec_arguments
@slots_option
@device_option
@format_option
@pass_context
def command(context: Context, spec_file: SpecFile, slots: int | None, device: str, format: str) -> None:
    """Say what SPEC means: its parameters, its grid, the sizes of its models and data, and what it will cost.

    No database is needed and nothing is started; the data set is prepared. Each corner of the space, the smallest and
    the largest model with the smallest and the largest batch, is trained for some steps, for memory and time.
    """
    from tuner.spec.grid import Grid

    spec = spec_file.read()
    check_device(device)
    slots = sensible_slots(slots, device) or visible_gpus()
    grid = Grid(spec.space)

    from tuner.training.preflight import Examiner, Question

    with Examiner() as examiner:  # it gets ready while the data is prepared
        from tuner.cli.advice import warnings
        from tuner.training.data import info, prepare

        folder = prepare(spec.data, context.settings)
        data = info(folder)
        preflight = examiner.ask(
            Question(
                study=spec.name,
                document=spec.document,
                data=folder,
                device=device,
                trials=tuple(_first_trials(spec)),
            )
        )
    estimate = _estimate(spec, preflight, slots)
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
        "model_parameters": {"smallest": preflight.fewest_parameters, "largest": preflight.most_parameters},
        "infeasible": [*preflight.infeasible, *_failed_corners(preflight)],
        "warnings": [*warnings(spec), *_too_little_memory(preflight, slots)],
    }
    corners = [_row(corner) for corner in preflight.corners]
    if format == "table":
        emit_one({key: value for key, value in known.items() if value not in (None, [], {})}, format)
        _show_corners(corners)
        emit_one(_in_words(estimate), format)
    else:
        emit_one({**known, "corners": corners, "estimate": estimate}, format)


def _first_trials(spec: StudySpec) -> Iterator[TrialConfig]:
    """Those that the search begins with."""
    from tuner.search import SAMPLERS
    from tuner.search.history import History

    history = History(direction=spec.objective.direction)
    for number in range(min(SAMPLED_TRIALS, spec.budget.trials or SAMPLED_TRIALS)):
        yield spec.space.resolve(SAMPLERS[spec.search.method](spec.space, history, spec.search.seed, number))


def _failed_corners(preflight: Preflight) -> Iterator[str]:
    for corner in preflight.corners:
        if corner.tried.problem:
            yield f"{corner.model} model with batch size {corner.batch_size}: {corner.tried.problem}"


def _too_little_memory(preflight: Preflight, slots: int) -> Iterator[str]:
    if preflight.fit is not None and preflight.fit < slots:
        yield (
            f"not enough memory for {slots} slots: {preflight.fit} of the largest trials fit at once, "
            f"{size(preflight.most_bytes or 0)} each"
        )


def _estimate(spec: StudySpec, preflight: Preflight, slots: int) -> dict[str, Any]:
    """What the study will take; None for what is not known."""
    from tuner.training.machine import usable_cores

    trained = [run.trial_seconds for run in preflight.trials if run.trial_seconds is not None]
    trial_seconds = sum(trained) / len(trained) if trained else None
    # More slots than processors take turns.
    at_once = min(slots, usable_cores() if preflight.device == "cpu" else max(1, visible_gpus()))
    study_seconds = least_seconds = None
    if trial_seconds is not None:
        study_seconds = _trained_seconds(spec, trial_seconds, spec.epochs) / at_once
        least_seconds = _trained_seconds(spec, trial_seconds, _least_epochs(spec)) / at_once
    return {
        "device": preflight.device,
        "slots": slots,
        "memory": {
            "trial_bytes": preflight.most_bytes,  # of the largest
            "available_bytes": preflight.available_bytes,
            "trials_that_fit": preflight.fit,
        },
        "trial_seconds": trial_seconds,  # on average, not pruned
        "study_seconds": study_seconds,  # if nothing is pruned
        "least_study_seconds": least_seconds,  # if all is pruned that may be, as early as it may be
        "bfloat16_gain": preflight.bfloat16_gain,
    }


def _least_epochs(spec: StudySpec) -> float:
    """Of a trial, on average: if the pruner ends every trial that it may, as early as it may."""
    from tuner.search.pruners import startup_trials
    from tuner.spec.search import NoPruner

    pruner, trials = spec.search.pruner, spec.budget.trials
    if isinstance(pruner, NoPruner) or trials is None:
        return spec.epochs
    whole = min(trials, startup_trials(pruner))
    return (whole * spec.epochs + (trials - whole) * min(pruner.min_epochs, spec.epochs)) / trials


def _trained_seconds(spec: StudySpec, trial_seconds: float, epochs: float) -> float:
    """Of training, summed, until the nearest limit of the budget is reached by trials of so many epochs."""
    budget, epoch_seconds = spec.budget, trial_seconds / spec.epochs
    limits = (
        budget.trials and budget.trials * epochs * epoch_seconds,
        budget.total_epochs and budget.total_epochs * epoch_seconds,
        budget.seconds,
    )
    return min(limit for limit in limits if limit)


# --- for people -----------------------------------------------------------------------------------------------------


def _row(corner: Corner) -> dict[str, Any]:
    tried = vars(corner.tried)
    return {**{key: value for key, value in vars(corner).items() if key != "tried"}, **tried}


def _show_corners(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the corners that could be trained, and below it what their models are."""
    trained = [row for row in rows if row["problem"] is None]
    if trained:
        click.echo()
        columns = ("parameters", "batch_size", Column("memory_bytes", "memory"), Column("epoch_seconds", "an epoch"))
        emit(trained, ("model", *columns, Column("trial_seconds", "a trial")), "table")
        click.echo()
        if models := {row["model"]: show(row["knobs"]) for row in trained if row["knobs"]}:
            emit_one(models, "table")
            click.echo()


def _in_words(estimate: Mapping[str, Any]) -> dict[str, str]:
    """The estimate in a line for each thing that it is about."""
    memory, slots, least = estimate["memory"], estimate["slots"], estimate["least_study_seconds"]
    words = {}
    if memory["trials_that_fit"] is not None:
        words["memory"] = (
            f"{size(memory['trial_bytes'])} for the largest trial; "
            f"{size(memory['available_bytes'])} available: {memory['trials_that_fit']:,} fit at once"
        )
    if estimate["trial_seconds"] is None:
        return {**words, "time": f"unknown: none of the first {SAMPLED_TRIALS} trials can be trained"}
    now, seconds = datetime.now(UTC), estimate["study_seconds"]
    words["a trial"] = f"{duration(estimate['trial_seconds'])} on average, on {estimate['device']}"
    words["the study"] = (
        f"{duration(seconds)} with {slots} slot{'s' if slots > 1 else ''}"
        + (f" if nothing is pruned, {duration(least)} if all is that may be" if least < seconds else "")
        + f"; started now it ends by {clock(now + timedelta(seconds=seconds), now)}"
    )
    gain = estimate["bfloat16_gain"]
    if gain is not None and gain >= WORTHWHILE_GAIN:
        words["advice"] = f"with training.precision: bfloat16 the largest model trains {gain:.1f} x as fast here"
    return words
