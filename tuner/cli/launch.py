"""`tuner launch`: from a study file to a finished study."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import emit_one, format_option
from tuner.cli.worker import sensible_slots, slot_options

if TYPE_CHECKING:
    from tuner.cli.live import View
    from tuner.cli.snapshot import Snapshot, SnapshotReader
    from tuner.launchers.local import LocalWorkers
    from tuner.spec.study import StudySpec
    from tuner.storage.studies import Launched

Command = TypeVar("Command", bound=Callable[..., Any])


def spec_arguments(command: Command) -> Command:
    """Adds what names a study file: SPEC, `--set` and `--name`."""
    for option in (
        click.option("--name", metavar="NAME", help="Name the study so, whatever the file says."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the file: training.epochs=2."
        ),
        click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.command("launch")
@spec_arguments
@click.option("--trials", type=click.IntRange(1), metavar="N", help="The budget: the same as --set budget.trials=N.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Worker processes to start here; 0 makes the study and starts nothing.",
)
@slot_options
@click.option("--detach", is_flag=True, help="Leave the workers running and return.")
@format_option
@pass_context
def command(
    context: Context,
    spec_file: Path,
    overrides: tuple[str, ...],
    name: str | None,
    trials: int | None,
    workers: int,
    slots: int | None,
    device: str,
    hang_seconds: float | None,
    detach: bool,
    format: str,
) -> None:
    """Make the study that SPEC describes, or go on with it, and train its trials here.

    Of a file whose budget alone has changed the study gets the new budget. Ctrl-C lets the running epochs finish and
    gives their trials back; the same command then goes on where it stopped.
    """
    from tuner.spec.study import read_spec

    if trials is not None:
        overrides = (*overrides, f"budget.trials={trials}")
    spec = read_spec(spec_file, overrides, name)
    slots = sensible_slots(slots, device, workers)
    url = context.database_url()

    from tuner.cli.snapshot import SnapshotReader
    from tuner.cli.summary import closing, result
    from tuner.launchers.local import LocalWorkers
    from tuner.storage.connection import Database
    from tuner.storage.studies import check_launch, launch_study
    from tuner.training.data import info
    from tuner.versions import versions

    with Database(url, application="tuner launch") as db:
        check_launch(db, spec)  # before data is downloaded for nothing
        data = prepare_data(context, spec)
        study, launched = launch_study(db, spec, versions())
        reader = SnapshotReader(db, study.name)
        resume = context.command_line("launch", str(spec_file), *repeated(overrides, name))
        _introduce(context, spec, launched, reader.look(), resume)
        if workers and not study.state.ended:
            crew = LocalWorkers(
                [study.name],
                database_url=url,
                settings=context.settings,
                slots=slots,
                device=device,
                hang_seconds=hang_seconds,
                detached=detach,
            )
            crew.start(workers)
            context.note(f"workers started: {workers}, with {slots} slots each; log: {', '.join(map(str, crew.logs))}")
            if not detach:
                _attend(context, crew, reader, format, resume)
        snapshot = reader.look()
    if format != "table":
        emit_one(result(snapshot), format)
    elif snapshot.state.ended:
        emit_one(closing(context, snapshot, info(data).baselines.get("validation", {})), format)


def repeated(overrides: tuple[str, ...], name: str | None) -> list[str]:
    """The options that make the same study of the file again."""
    return [word for override in overrides for word in ("--set", override)] + (["--name", name] if name else [])


def prepare_data(context: Context, spec: StudySpec) -> Path:
    """Makes the data set ready here, before anything is written to the database. Raises DataError."""
    from tuner.training.data import location, prepare

    if not location(spec.data, context.settings).is_dir():
        context.note(f"preparing the data set {spec.data.name}, once")
    return prepare(spec.data, context.settings)


def _attend(context: Context, crew: LocalWorkers, reader: SnapshotReader, format: str, resume: str) -> None:
    """Shows the study until the workers end. Raises WorkersFailed where they do before the study does."""
    from tuner.cli.attend import attend
    from tuner.cli.live import View, open_view

    # With --format json, stdout is for the result alone.
    stream = sys.stdout if format == "table" else sys.stderr
    try:
        with View() if context.quiet else open_view(stream, old_trials=False) as view:
            attend(crew, _shown(reader, view), view.say)
    except click.Abort:
        context.note(f"what ran was given back; go on with: {resume}")
        raise
    if not reader.look().state.ended:
        raise crew.failure()


def _shown(reader: SnapshotReader, view: View) -> Iterator[None]:
    for snapshot in reader.follow():
        view.show(snapshot)
        yield


def _introduce(context: Context, spec: StudySpec, launched: Launched, snapshot: Snapshot, resume: str) -> None:
    """Says what the study is, what became of it, and with which commands to go on."""
    from tuner.cli.summary import done, planned
    from tuner.search.pruners import startup_trials
    from tuner.search.tpe import STARTUP_TRIALS
    from tuner.spec.grid import Grid
    from tuner.storage.studies import Launched

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
    for purpose, line in {
        "join": context.command_line("worker", "start", name),
        "watch": context.command_line("study", "watch", name),
        "stop": context.command_line("study", "stop", name),
        "resume": resume,
        "dashboard": context.command_line("dashboard"),
    }.items():
        context.note(f"  {purpose:<9}  {line}")
