"""`tuner study`: look at studies, steer them, open their test part, delete them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import Column, emit, emit_one, format_option
from tuner.cli.output import show as shown
from tuner.errors import InvalidInput

if TYPE_CHECKING:
    from tuner.storage.connection import Database
    from tuner.storage.studies import StudyRecord
    from tuner.storage.trials import TrialRecord


@click.group("study")
def command() -> None:
    """Look at studies, steer them, and open their test part."""


@command.command("list")
@format_option
@pass_context
def list_(context: Context, format: str) -> None:
    """List all studies, the newest last."""
    with context.connect() as db:
        from tuner.states import TrialState
        from tuner.storage.studies import list_studies

        rows = [
            {
                "study": study.name,
                "state": study.state,
                "trials": sum(study.trials.values()),
                "budget": study.budget.trials,
                **{state.lower(): study.trials[state] for state in TrialState},
                "metric": study.metric,
                "best": study.best_value,
                "best_trial": study.best_number,
                "workers": study.workers,
                "epochs": study.epochs,
                "seconds": study.seconds,
                "created_at": study.created_at,
                "ended_at": study.ended_at,
            }
            for study in list_studies(db)
        ]
    columns = ("study", "state", "trials", Column("budget", "of"), "pruned", Column("fail", "failed"))
    emit(rows, (*columns, "metric", "best", "workers", Column("seconds", "trained"), "created_at"), format)


@command.command("show")
@click.argument("name")
@format_option
@pass_context
def show(context: Context, name: str, format: str) -> None:
    """Show where the study NAME stands, and what is to be done next."""
    with context.connect() as db:
        from tuner.cli.snapshot import SnapshotReader
        from tuner.cli.summary import best_of, counted, next_commands, result, status
        from tuner.storage.evaluations import list_evaluations
        from tuner.storage.studies import get_study, list_studies

        study = get_study(db, name)
        snapshot = SnapshotReader(db, name).look()
        workers = next((listed.workers for listed in list_studies(db) if listed.name == name), 0)
        opened = list_evaluations(db, study.study_id)
    spec = study.spec
    known: dict[str, Any] = {
        "objective": {**spec.document["objective"], "direction": spec.objective.direction},
        "data": spec.document["data"],
        "search": spec.document["search"],
        "budget": {limit: amount for limit, amount in study.budget if amount is not None},
        "spent": {
            "trials": snapshot.trials,
            "epochs": snapshot.trained_epochs,
            "seconds": snapshot.trained_seconds,
        },
        "test_part_opened": [vars(opening) for opening in opened],
        "versions": study.versions,
        "created_at": study.created_at,
        "ended_at": study.ended_at,
    }
    if format == "table":
        about = {"study": name, "status": status(context, snapshot, workers), "trials": counted(snapshot)}
        scores = [f"trial {opening.number}: {shown(opening.scores)}" for opening in opened]
        emit_one({**about, "best": best_of(snapshot), **known, "test_part_opened": scores}, format)
        return
    emit_one(
        {
            **result(snapshot),
            "running": len(snapshot.running),
            "workers": workers,
            "outcomes": snapshot.outcomes,
            **known,
            "next": next(iter(next_commands(context, snapshot, workers).values())),
        },
        format,
    )


@command.command()
@click.argument("name")
@pass_context
def watch(context: Context, name: str) -> None:
    """Show the study NAME as it runs, from any machine that reaches the database, until it ends."""
    with context.connect() as db:
        from tuner.cli import live
        from tuner.cli.snapshot import SnapshotReader
        from tuner.cli.summary import closing

        reader = SnapshotReader(db, name)
        live.watch(reader, live.open_view(sys.stdout, old_trials=True))
        emit_one(closing(context, reader.look()), "table")


@command.command()
@click.argument("name")
@format_option
@pass_context
def best(context: Context, name: str, format: str) -> None:
    """Print the best trial of the study NAME: its value and its parameters."""
    with context.connect() as db:
        from tuner.storage.studies import get_study
        from tuner.storage.trials import find_trial

        study = get_study(db, name)
        trial = find_trial(db, study, "best")
    emit_one(
        {
            "study": name,
            "number": trial.number,
            "metric": study.spec.objective.metric,
            "value": trial.value,
            "epoch": trial.best_epoch,
            "params": trial.params,
            "export": context.command_line("trial", "export", name, "best", "--to", f"{name}-best"),
        },
        format,
    )


@command.command()
@click.argument("name")
@pass_context
def pause(context: Context, name: str) -> None:
    """Let running epochs of the study NAME finish and give its trials back; its workers wait."""
    _steer(context, name, "paused", "what runs is given back after its epoch", "resume")


@command.command()
@click.argument("name")
@pass_context
def resume(context: Context, name: str) -> None:
    """Go on with a study that was paused, stopped or cancelled."""
    _steer(context, name, "running", "workers may take trials again", "show")


@command.command()
@click.argument("name")
@pass_context
def stop(context: Context, name: str) -> None:
    """Begin no more trials of the study NAME; those that run train to their end."""
    _steer(context, name, "stopping", "running trials train to their end, no others begin", "show")


@command.command()
@click.argument("name")
@pass_context
def cancel(context: Context, name: str) -> None:
    """End the study NAME now; trials that run are ended as cancelled."""
    _steer(context, name, "cancelled", "running trials are ended now", "show")


@command.command("set")
@click.argument("name")
@click.option("--trials", type=click.IntRange(1, 1_000_000), metavar="N", help="Trials, whatever their outcome.")
@click.option("--total-epochs", type=click.IntRange(1), metavar="N", help="Epochs trained, summed over all trials.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Seconds of training, summed.")
@pass_context
def set_(context: Context, name: str, trials: int | None, total_epochs: int | None, seconds: float | None) -> None:
    """Give the study NAME another budget; one that has finished goes on if it is larger."""
    limits = {"trials": trials, "total_epochs": total_epochs, "seconds": seconds}
    given = {limit: amount for limit, amount in limits.items() if amount is not None}
    if not given:
        raise InvalidInput("nothing to set; give --trials, --total-epochs or --seconds")
    with context.connect() as db:
        from tuner.spec.grid import Grid
        from tuner.storage.studies import get_study, set_budget

        study = get_study(db, name)
        points = Grid(study.spec.space).size
        if study.spec.search.method == "grid" and trials is not None and trials > points:
            raise InvalidInput(f"--trials {trials}: the grid of study {name!r} has {points} points")
        study = set_budget(db, name, study.budget.model_copy(update=given))
    budget = ", ".join(f"{limit} {amount}" for limit, amount in study.budget if amount is not None)
    context.note(f"study {name}: {study.state}, budget {budget}")


@command.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def delete(context: Context, name: str, dry_run: bool, yes: bool) -> None:
    """Delete the study NAME with its trials, checkpoints and logs."""
    with context.connect() as db:
        from tuner.storage import artifacts
        from tuner.storage.studies import delete_study, get_study, spent

        study = get_study(db, name)
        trials = spent(db, study.study_id).trials
        folder = context.settings.artifacts / str(study.study_id)
        what = f"study {name} with {trials} trials" + (f", and {folder}" if folder.is_dir() else "")
        if dry_run:
            click.echo(f"would delete {what}")
            return
        if not yes:
            if not sys.stdin.isatty():
                raise InvalidInput(f"nothing was deleted: say --yes to delete {what}")
            click.confirm(f"delete {what}?", abort=True, err=True)
        delete_study(db, name)
        artifacts.remove_study(context.settings.artifacts, study.study_id)
        context.note(f"deleted {what}")


@command.command()
@click.argument("name")
@format_option
@pass_context
def evaluate(context: Context, name: str, format: str) -> None:
    """Score the best trial of the study NAME on the held-out test part, once.

    The opening is recorded. Asked again, this prints the recorded scores and opens nothing: a test part that is looked
    at repeatedly becomes a second validation part.
    """
    with context.connect() as db:
        from tuner.storage.evaluations import list_evaluations
        from tuner.storage.studies import get_study
        from tuner.storage.trials import find_trial
        from tuner.training.data import info, prepare

        study = get_study(db, name)
        best = find_trial(db, study, "best")
        data_folder = prepare(study.spec.data, context.settings)
        if not list_evaluations(db, study.study_id):
            _open_test_part(context, db, study, best)
        first = list_evaluations(db, study.study_id)[0]
        trial = find_trial(db, study, first.number)
    if trial.number != best.number:
        context.note(f"the test part was opened for trial {trial.number}; trial {best.number} is the best by now")
    emit_one(
        {
            "study": name,
            "trial": trial.number,
            "validation": {study.spec.objective.metric: trial.value},
            "test": first.scores,
            "baselines": info(data_folder).baselines,
            "opened_at": first.opened_at,
        },
        format,
    )


def _open_test_part(context: Context, db: Database, study: StudyRecord, best: TrialRecord) -> None:
    """Scores and records. Raises InvalidInput while the study may still choose another trial."""
    from tuner.cli.trial import checkpoint_of
    from tuner.storage.evaluations import log_evaluation
    from tuner.training.data import location
    from tuner.training.evaluation import score

    if not study.state.ended:
        raise InvalidInput(
            f"study {study.name!r} is {study.state}: its test part is opened once, when the search has ended; to end "
            f"it: {context.command_line('study', 'stop', study.name)}"
        )
    spec = study.spec
    kept = checkpoint_of(context, best)
    scores = score(spec.space.resolve(best.params), kept, location(spec.data, context.settings), "test")
    log_evaluation(db, study.study_id, best.number, scores)


def _steer(context: Context, name: str, state: str, meaning: str, then: str) -> None:
    with context.connect() as db:
        from tuner.states import StudyState
        from tuner.storage.studies import set_state

        study = set_state(db, name, StudyState(state))
    context.note(f"study {name}: {study.state}; {meaning}; next: {context.command_line('study', then, name)}")
