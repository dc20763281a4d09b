"""`tuner study`: look at studies, steer them, delete them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import evaluate
from tuner.cli.context import Context, pass_context
from tuner.cli.deletion import delete_options, end_training, is_agreed
from tuner.cli.output import Column, emit, emit_one, format_option
from tuner.cli.output import show as shown
from tuner.cli.steering import ORDERS, command_for
from tuner.errors import InvalidInput

if TYPE_CHECKING:
    from tuner.spec.search import BudgetConfig


@click.group("study")
def command() -> None:
    """Look at studies, steer and judge them."""


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
    emit(rows, (*columns, "best", "workers", Column("seconds", "trained")), format)


@command.command("show", short_help="Show where a study stands.")
@click.argument("name")
@format_option
@pass_context
def show(context: Context, name: str, format: str) -> None:
    """Show where the study NAME stands, and what is to be done next."""
    with context.connect() as db:
        from tuner.cli.snapshot import SnapshotReader
        from tuner.cli.summary import best_of, counted, expected_end, next_commands, result, status
        from tuner.cli.workers_view import in_words, name_of
        from tuner.storage.evaluations import list_evaluations
        from tuner.storage.studies import get_study
        from tuner.storage.trials import interruptions

        study = get_study(db, name)
        snapshot = SnapshotReader(db, name).look()
        opened = list_evaluations(db, study.study_id)
        interrupted = interruptions(db, study)
    spec = study.spec
    known: dict[str, Any] = {
        "objective": {**spec.document["objective"], "direction": spec.objective.direction},
        "data": spec.document["data"],
        "search": spec.document["search"],
        "engine": None if study.engine is None else vars(study.engine),
        "budget": {limit: amount for limit, amount in study.budget if amount is not None},
        "spent": {
            "trials": snapshot.trials,
            "epochs": snapshot.trained_epochs,
            "seconds": snapshot.trained_seconds,
        },
        "interrupted_attempts": interrupted,
        "test_part_opened": [vars(opening) for opening in opened],
        "versions": study.versions,
        "created_at": study.created_at,
        "ended_at": study.ended_at,
    }
    if format == "table":
        about = {
            "study": name,
            "status": status(context, snapshot),
            "trials": counted(snapshot),
            "time": expected_end(snapshot),
            "workers": {name_of(worker): in_words(worker, snapshot) for worker in snapshot.workers},
        }
        about = {key: value for key, value in about.items() if value}
        scores = [f"trial {opening.number}: {shown(opening.scores)}" for opening in opened]
        trained = {"engine": str(study.engine or "to be measured by the first worker")}
        emit_one({**about, "best": best_of(snapshot), **known, **trained, "test_part_opened": scores}, format)
        return
    emit_one(
        {
            **result(snapshot),
            "reason": snapshot.reason,
            "running": len(snapshot.running),
            "workers": snapshot.live_workers,
            "remaining_seconds": snapshot.remaining_seconds,
            "expected_end": snapshot.expected_end,
            "outcomes": snapshot.outcomes,
            **known,
            "next": next(iter(next_commands(context, snapshot).values())),
        },
        format,
    )


@command.command(short_help="Show a study as it runs.")
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


@command.command(short_help="Print the best trial of a study.")
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


@command.command("set", short_help="Give a study another budget.")
@click.argument("name")
@click.option("--trials", type=int, metavar="N", help="Trials, whatever their outcome.")
@click.option("--total-epochs", type=int, metavar="N", help="Epochs trained, summed over all trials.")
@click.option("--seconds", type=float, metavar="S", help="Seconds of training, summed.")
@click.option("--failures", type=int, metavar="N", help="Failed trials that pause the study.")
@pass_context
def set_(
    context: Context,
    name: str,
    trials: int | None,
    total_epochs: int | None,
    seconds: float | None,
    failures: int | None,
) -> None:
    """Give the study NAME another budget, also while it runs; one that has finished goes on if it is larger."""
    limits = {"trials": trials, "total_epochs": total_epochs, "seconds": seconds, "failures": failures}
    given = {limit: amount for limit, amount in limits.items() if amount is not None}
    if not given:
        raise InvalidInput("nothing to set; give --trials, --total-epochs, --seconds or --failures")
    with context.connect() as db:
        from tuner.spec.grid import Grid
        from tuner.storage.steering import set_budget
        from tuner.storage.studies import get_study

        study = get_study(db, name)
        budget = _limits({**study.budget.model_dump(), **given})
        points = Grid(study.spec.space).size
        if study.spec.search.method == "grid" and trials is not None and trials > points:
            raise InvalidInput(f"--trials {trials}: the grid of study {name!r} has {points} points")
        study = set_budget(db, name, budget)
    limited = ", ".join(f"{limit} {amount}" for limit, amount in study.budget if amount is not None)
    context.note(f"study {name}: {study.state}, budget {limited}")


@command.command(short_help="Delete a study with all its files.")
@click.argument("name")
@delete_options
@pass_context
def delete(context: Context, name: str, dry_run: bool, yes: bool) -> None:
    """Delete the study NAME with its trials, checkpoints and logs; trials that are in training are cancelled."""
    with context.connect() as db:
        from tuner.storage.studies import delete_study, get_study, spent

        study = get_study(db, name)
        trials = spent(db, study.study_id).trials
        files = context.artifacts.find_study(study.folder)
        what = f"study {name} with {trials} trials" + (f", and {files}" if files else "")
        if is_agreed(what, dry_run=dry_run, yes=yes):
            end_training(db, [name])
            delete_study(db, name)
            context.artifacts.remove_study(study.folder)
            context.note(f"deleted {what}")


def _limits(budget: Mapping[str, float | None]) -> BudgetConfig:
    """Raises InvalidInput with a line for each limit that cannot be."""
    from pydantic import ValidationError

    from tuner.spec.explain import explained
    from tuner.spec.faults import dotted
    from tuner.spec.search import BudgetConfig

    try:
        return BudgetConfig.model_validate(budget)
    except ValidationError as error:
        faults = explained(error, dict(budget))
        lines = [f"--{dotted(fault.path).replace('_', '-')}: {fault.message}" for fault in faults]
        raise InvalidInput("\n".join(lines)) from None


for order in ORDERS:
    command.add_command(command_for(order))
command.add_command(evaluate.command)
