"""`tuner check`: what a study file means and what it will cost, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import Column, clock, duration, emit, emit_one, format_option, show, size
from tuner.cli.slots import check_device, device_option, sensible_slots, slots_option, visible_gpus
from tuner.cli.spec_file import SpecFile, spec_arguments

if TYPE_CHECKING:
    from tuner.search.beginning import Sample
    from tuner.settings import Settings
    from tuner.spec.grid import Grid
    from tuner.spec.study import StudySpec
    from tuner.training.preflight import Corner, ModelSize, Preflight

TRIED_TRIALS = 3  # of those that the search begins with: what trials take on average

# Of models at the ends of the space: that of most work is not always that of most parameters.
WORK: Mapping[ModelSize, str] = {"smallest": "least work", "largest": "most work"}


@click.command("check", short_help="Say what a study file means and costs.")
@spec_arguments
@slots_option
@device_option
@format_option
@pass_context
def command(context: Context, spec_file: SpecFile, slots: int | None, device: str, format: str) -> None:
    """Say what SPEC means: its parameters, its grid, the sizes of its models and data, and what it will cost.

    No database is needed and nothing is started; the data set is prepared. Each corner of the space, the models of
    least and of most work with the smallest and the largest batch, is trained for some steps, for memory and time.
    Where trials can be stacked, the engines are compared.
    """
    from tuner.spec.grid import Grid

    spec = spec_file.read()
    check_device(device)
    slots = sensible_slots(slots, device) or visible_gpus()
    grid = Grid(spec.space)

    from tuner.cli.advice import warnings
    from tuner.search.beginning import first_trials, sample
    from tuner.training.preflight import Examiner, Question

    with Examiner() as examiner:  # it gets ready while the data is prepared
        begins_with = sample(spec, slots=slots)

        from tuner.cli.summary import planned
        from tuner.training.data import info, prepare

        folder = prepare(spec.data, context.settings)
        data = info(folder)
        preflight = examiner.ask(
            Question(
                study=spec.name,
                document=spec.document,
                data=folder,
                device=device,
                trials=tuple(islice(first_trials(spec), TRIED_TRIALS)),
                groups=begins_with.groups,
            )
        )
    streamed = _streamed(folder, preflight.data_bytes, context.settings)
    estimate = _estimate(spec, preflight, begins_with, slots)
    known = {
        "study": spec.name,
        "searched_parameters": len({parameter.path for parameter in spec.space.parameters}),
        "grid_points": grid.size or None,
        "no_grid_for": [parameter.name for parameter in grid.unlisted],
        "search": f"{spec.search.method}, seed {spec.search.seed}, pruner {spec.search.pruner.name}",
        "budget": {limit: amount for limit, amount in spec.budget if amount is not None},
        "data": {
            "name": spec.data.name,
            "task": data.task,
            "example": " x ".join(map(str, data.input_shape)),
            "outputs": data.outputs,
            **data.sizes,
            **({"streamed": streamed} if streamed else {}),
        },
        "baselines": data.baselines.get("validation", {}),
        "model_parameters": {"fewest": preflight.fewest_parameters, "most": preflight.most_parameters},
        "infeasible": [*preflight.infeasible, *_failed_corners(preflight)],
        "warnings": [*warnings(spec), *_too_little_memory(preflight, slots)],
    }
    corners = [_row(corner) for corner in preflight.corners]
    if format == "table":
        told = {**known, "budget": planned(spec), "no_grid_for": None, "grid_points": _grid_in_words(spec, grid)}
        emit_one({key: value for key, value in told.items() if value not in (None, [], {})}, format)
        _show_corners(corners)
        emit_one(_in_words(spec, estimate), format)
    else:
        emit_one({**known, "corners": corners, "estimate": estimate}, format)


def _failed_corners(preflight: Preflight) -> Iterator[str]:
    for corner in preflight.corners:
        if corner.tried.problem:
            yield f"model of {WORK[corner.model]}, batch size {corner.batch_size}: {corner.tried.problem}"


def _too_little_memory(preflight: Preflight, slots: int) -> Iterator[str]:
    if preflight.fit is not None and preflight.fit < slots:
        yield (
            f"not enough memory for {slots} slots: {preflight.fit} of the trials that take most fit at once, "
            f"{size(preflight.most_bytes or 0)} each"
        )


def _streamed(folder: Path, limit: int | None, settings: Settings) -> str | None:
    """Says so where the training part is larger than what may be kept in memory, in bytes."""
    from tuner.training.data import part

    train = part(folder, "train")
    needed = train.inputs.nbytes + train.targets.nbytes
    if limit is None or needed <= limit:
        return None
    why = "half of the memory" if settings.data_memory is None else "TUNER_DATA_MEMORY_MB"
    return f"from disk: the training part has {size(needed)}, more than the {size(limit)} it may have ({why})"


def _estimate(spec: StudySpec, preflight: Preflight, begins_with: Sample, slots: int) -> dict[str, Any]:
    """What the study will take; None for what is not known."""
    from tuner.cli.advice import on_precision
    from tuner.training.machine import usable_cores

    trained = [run.trial_seconds for run in preflight.trials if run.trial_seconds is not None]
    trial_seconds = sum(trained) / len(trained) if trained else None
    # More slots than processors take turns.
    at_once = min(slots, usable_cores() if preflight.device == "cpu" else max(1, visible_gpus()))
    study_seconds = least_seconds = None
    if trial_seconds is not None:
        stackable = begins_with.stackable / begins_with.trials
        each_seconds = trial_seconds * (1.0 - stackable + stackable / preflight.engine_gain)
        study_seconds = _trained_seconds(spec, each_seconds, spec.epochs) / at_once
        least_seconds = _trained_seconds(spec, each_seconds, _least_epochs(spec)) / at_once
    return {
        "device": preflight.device,
        "slots": slots,
        "memory": {
            "trial_bytes": preflight.most_bytes,  # of the one that takes most
            "available_bytes": preflight.available_bytes,
            "trials_that_fit": preflight.fit,
        },
        "engine": preflight.engine and asdict(preflight.engine),
        "engine_gain": preflight.engine_gain,  # times as fast as single trials, for those that can be stacked
        "engine_problem": preflight.engine_problem,
        "stackable": begins_with.stackable / begins_with.trials,  # share of the trials
        "trial_seconds": trial_seconds,  # on average, not pruned, trained singly
        "study_seconds": study_seconds,  # if nothing is pruned
        "least_study_seconds": least_seconds,  # if all is pruned that may be, as early as it may be
        "bfloat16_gain": preflight.bfloat16_gain,
        "advice": on_precision(spec, preflight.bfloat16_gain, preflight.engine, preflight.engine_gain),
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
    known = {key: value for key, value in vars(corner).items() if key != "tried"}
    return {**known, "model": WORK[corner.model], **vars(corner.tried)}


def _grid_in_words(spec: StudySpec, grid: Grid) -> str | None:
    """Only a search by grid needs one, and its file cannot be without."""
    if not grid.unlisted:
        return f"{grid.size:,}" if grid.size else None
    names = ", ".join(parameter.name for parameter in grid.unlisted)
    return f"endless: any value in a range for {names} ({spec.search.method} needs no grid)"


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


def _in_words(spec: StudySpec, estimate: Mapping[str, Any]) -> dict[str, str]:
    """The estimate in a line for each thing that it is about."""
    memory, slots, least = estimate["memory"], estimate["slots"], estimate["least_study_seconds"]
    words = {}
    if memory["trials_that_fit"] is not None:
        words["memory"] = (
            f"{size(memory['trial_bytes'])} for the trial that takes most; "
            f"{size(memory['available_bytes'])} available: {memory['trials_that_fit']:,} fit at once"
        )
    if estimate["trial_seconds"] is None:
        return {**words, "time": f"unknown: none of the first {TRIED_TRIALS} trials can be trained"}
    now, seconds = datetime.now(UTC), estimate["study_seconds"]
    words["a trial"] = f"{duration(estimate['trial_seconds'])} on average, trained singly, on {estimate['device']}"
    words["engine"] = _engine_in_words(spec, estimate)
    words["the study"] = (
        f"{duration(seconds)} on this machine alone with {slots} slot{'s' if slots > 1 else ''}"
        + (f" if nothing is pruned, {duration(least)} if all is that may be" if least < seconds else "")
        + f"; started now it ends by {clock(now + timedelta(seconds=seconds), now)}"
    )
    return {**words, "advice": estimate["advice"]} if estimate["advice"] else words


def _engine_in_words(spec: StudySpec, estimate: Mapping[str, Any]) -> str:
    """By what the trials would be trained, and why."""
    from tuner.search import proposes_alone
    from tuner.spec.stacking import Engine

    whose = "auto: " if spec.engine == "auto" else "as the file says: "
    if spec.engine == "single":
        return f"{whose}single"
    if estimate["engine_problem"]:
        return f"unknown: {estimate['engine_problem']}"
    if estimate["engine"] is None and spec.engine == "auto" and proposes_alone(spec.search):
        return f"{whose}single, {spec.search.method} proposes one trial at a time (search.parallel_proposals)"
    if estimate["engine"] is None:
        return "single, none of these trials can be stacked"
    engine = Engine(**estimate["engine"])
    if not engine.members:
        return "single, streamed data cannot be stacked"
    if engine.name == "single":
        return f"{whose}single, stacks would not be faster"
    text = f"{whose}{engine}, {estimate['engine_gain']:.1f} x as fast as single trials"
    share = estimate["stackable"]
    return text if share == 1.0 else f"{text} for the {share:.0%} of trials that can be stacked"
