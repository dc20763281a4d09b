"""`tuner launch`: from a study file to a finished study."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import emit_one, format_option
from tuner.cli.slots import Crew, crew_options
from tuner.cli.spec_file import SpecFile, spec_arguments
from tuner.errors import InvalidInput, TooManyFailures

if TYPE_CHECKING:
    from tuner.cli.live import View
    from tuner.cli.snapshot import Snapshot, SnapshotReader
    from tuner.launchers.local import LocalWorkers
    from tuner.spec.study import StudySpec
    from tuner.storage.steering import Launched


@click.command("launch", short_help="Make or go on with a study, and train.")
@spec_arguments
@click.option("--trials", type=click.IntRange(1), metavar="N", help="The budget: the same as --set budget.trials=N.")
@crew_options
@click.option("--detach", is_flag=True, help="Leave the workers running and return.")
@format_option
@pass_context
def command(context: Context, spec_file: SpecFile, trials: int | None, crew: Crew, detach: bool, format: str) -> None:
    """Make the study that SPEC describes, or go on with it, and train its trials here.

    Of a file whose budget alone has changed the study gets the new budget. Ctrl-C lets the running epochs finish and
    gives their trials back; the same command then goes on where it stopped.
    """
    from tuner.spec.search import MAX_TRIALS

    if trials is not None:
        if trials > MAX_TRIALS:
            raise InvalidInput(f"--trials: {trials} is out of bounds; it must be at most {MAX_TRIALS:,}")
        spec_file = replace(spec_file, overrides=(*spec_file.overrides, f"budget.trials={trials}"))
    spec = spec_file.read()
    again = context.command_line("launch", *spec_file.words, *crew.words)

    from tuner.cli.attend import early_workers

    with early_workers(context, crew, detached=detach) as workers, context.connect("tuner launch") as db:
        from tuner.storage.steering import check_launch, launch_study
        from tuner.training.data import info
        from tuner.versions import versions

        check_launch(db, spec)  # before data is downloaded for nothing
        data = prepare_data(context, spec)
        study, launched = launch_study(db, spec, versions())
        trains = crew.workers > 0 and not study.state.ended
        if trains:
            workers.serve([study.name], db.address.url)

        from tuner.cli.snapshot import SnapshotReader
        from tuner.cli.summary import closing, result

        reader = SnapshotReader(db, study.name)
        _introduce(context, spec, launched, reader.look(), again)
        if trains:
            logs = ", ".join(map(str, workers.logs))
            slots = f"{crew.slots} slots" if crew.slots else "as many slots as pay"
            context.note(f"workers started: {crew.workers}, with {slots} each; log: {logs}")
            if not detach:
                _attend(context, workers, reader, format, again)
        snapshot = reader.look()
    if format != "table":
        emit_one(result(snapshot), format)
    elif snapshot.state.ended:
        emit_one(closing(context, snapshot, info(data).baselines.get("validation", {})), format)


def prepare_data(context: Context, spec: StudySpec) -> Path:
    """Makes the data set ready here, before anything is written to the database. Raises DataError."""
    from tuner.training.data import location, prepare

    if not location(spec.data, context.settings).is_dir():
        context.note(f"preparing the data set {spec.data.name}, once")
    return prepare(spec.data, context.settings)


def _attend(context: Context, workers: LocalWorkers, reader: SnapshotReader, format: str, again: str) -> None:
    """Shows the study until the workers end. Raises WorkersFailed where they do before the study does,
    TooManyFailures where that was paused for them.
    """
    from tuner.cli.attend import attend
    from tuner.cli.live import View, open_view

    # With --format json, stdout is for the result alone.
    stream = sys.stdout if format == "table" else sys.stderr
    try:
        with View() if context.quiet else open_view(stream, old_trials=False) as view:
            attend(workers, _shown(reader, view, workers.wait), view.say)
    except click.Abort:
        context.note(f"what ran was given back; go on with: {again}")
        raise
    snapshot = reader.look()
    if snapshot.reason:
        resume = context.command_line("study", "resume", snapshot.name)
        raise TooManyFailures(f"study {snapshot.name} was paused: {snapshot.reason}; next: {resume}")
    if not snapshot.state.ended:
        context.note(f"go on with: {again}")
        raise workers.failure()


def _shown(reader: SnapshotReader, view: View, pause: Callable[[float], object]) -> Iterator[None]:
    for snapshot in reader.follow(pause):
        view.show(replace(snapshot, awaited="the worker is starting"))
        if snapshot.reason:  # too many trials failed: it is for a person to go on
            return
        yield


def _introduce(context: Context, spec: StudySpec, launched: Launched, snapshot: Snapshot, again: str) -> None:
    """Says what the study is, what became of it, and, unless it has ended, with which commands to go on."""
    from tuner.cli.advice import warnings
    from tuner.cli.summary import done, planned
    from tuner.search.pruners import startup_trials
    from tuner.search.tpe import STARTUP_TRIALS
    from tuner.spec.grid import Grid
    from tuner.storage.steering import Launched

    name, search = spec.name, spec.search
    match launched:
        case Launched.CREATED:
            context.note(f"study {name}: created, {planned(snapshot)}")
        case Launched.BUDGET_UPDATED:
            context.note(f"study {name}: has a new budget, {done(snapshot)} done")
        case Launched.RESUMED:
            context.note(f"study {name}: {'ended' if snapshot.state.ended else 'goes on'}, {done(snapshot)} done")
    method = f"{search.method}, seed {search.seed}"
    if search.method == "grid":
        trials, points = spec.budget.trials or 0, Grid(spec.space).size
        method += f"; {trials:,} of {points:,} points" + (", a random sample of the grid" if trials < points else "")
    if search.method == "tpe":
        method += f"; the first {STARTUP_TRIALS} trials are random search's"
    context.note(f"search: {method}")
    if search.pruner.name != "none":
        startup = startup_trials(search.pruner)
        after = f", once {startup} trials are complete" if startup else ""
        context.note(f"pruner: {search.pruner.name}, from epoch {search.pruner.min_epochs} on{after}")
    for warning in warnings(spec):
        context.note(f"warning: {warning}")
    if snapshot.state.ended:
        return
    for purpose, line in {
        "join": context.command_line("worker", "start", name),
        "watch": context.command_line("study", "watch", name),
        "stop": context.command_line("study", "stop", name),
        "resume": again,
        "dashboard": context.command_line("dashboard"),
    }.items():
        context.note(f"  {purpose:<9}  {line}")
