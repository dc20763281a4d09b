"""`tuner trial`: the trials of a study, one by one."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import emit, emit_one, format_option
from tuner.cli.output import show as shown
from tuner.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from tuner.storage.studies import StudyRecord
    from tuner.storage.trials import AttemptRecord, TrialRecord

FOLLOW_SECONDS = 0.5
_LEVELS = "▁▂▃▄▅▆▇█"
_SPARKLINE_WIDTH = 40


@click.group("trial")
def command() -> None:
    """Look at trials, and export their models."""


@command.command("list")
@click.argument("study")
@format_option
@pass_context
def list_(context: Context, study: str, format: str) -> None:
    """List the trials of STUDY by number."""
    with context.connect() as db:
        from tuner.storage.studies import get_study
        from tuner.storage.trials import list_trials

        rows = [_row(trial) for trial in list_trials(db, get_study(db, study))]
    emit(rows, ("number", "state", "value", "epochs", "attempts", "outcome", "seconds", "params"), format)


@command.command(short_help="Show all that is known of a trial.")
@click.argument("study")
@click.argument("trial", metavar="N|best")
@format_option
@pass_context
def show(context: Context, study: str, trial: str, format: str) -> None:
    """Show all that is known of trial N of STUDY, or of the best one."""
    with context.connect() as db:
        from tuner.storage.studies import get_study
        from tuner.storage.trials import trial_details

        record = get_study(db, study)
        details = trial_details(db, record, trial)
    found, curve = details.trial, details.curve
    known = {"study": study, **_row(found), "metric": record.spec.objective.metric}
    if format != "table":
        attempts = [vars(attempt) for attempt in details.attempts]
        emit_one({**known, "history": attempts, "curve": curve, "config": _config(record, found)}, format)
        return
    number = str(found.number)
    commands = {"logs": context.command_line("trial", "logs", study, number)}
    if found.checkpoint:
        commands["export"] = context.command_line("trial", "export", study, number, "--to", f"{study}-{number}")
    told = {str(attempt.attempt): _attempt(attempt) for attempt in details.attempts}
    emit_one(
        {**known, "history": told, "curve": _curve(curve), "config": _config(record, found), "commands": commands},
        format,
    )


@command.command(short_help="Print what a trial's training wrote.")
@click.argument("study")
@click.argument("trial", metavar="N|best")
@click.option("--follow", "-f", is_flag=True, help="Go on printing until the trial ends.")
@pass_context
def logs(context: Context, study: str, trial: str, follow: bool) -> None:
    """Print what the training of trial N of STUDY wrote, all attempts."""
    with context.connect() as db:
        from tuner.storage.artifacts import TrialArtifacts
        from tuner.storage.studies import get_study
        from tuner.storage.trials import find_trial

        record = get_study(db, study)
        found = find_trial(db, record, trial)
        store = context.artifacts
        files = TrialArtifacts(root=store.root, study=record.folder, trial_id=found.trial_id)
        attempt, position, something = 1, 0, False
        while True:
            found = find_trial(db, record, found.number)  # first: once it has ended, its log is whole
            while True:
                position = _print_from(store.local(files.relative(files.log(attempt))), position)
                something = something or position > 0
                if attempt >= found.attempts:
                    break
                attempt, position = attempt + 1, 0
            if found.state.finished or not follow:
                break
            time.sleep(FOLLOW_SECONDS)
        if not something and not follow:
            raise NotFound(f"trial {found.number} has written nothing yet, or elsewhere than to {store.place}")


@command.command(short_help="Run failed trials again.")
@click.argument("study")
@click.argument("trials", metavar="[N]...", type=int, nargs=-1)
@click.option("--failed", is_flag=True, help="All that failed.")
@pass_context
def retry(context: Context, study: str, trials: tuple[int, ...], failed: bool) -> None:
    """Have failed trials N of STUDY run again: the same numbers and points, from their last checkpoints.

    Those that crashed, timed out or were cancelled have failed. What they have spent of the budget stays spent.
    """
    if failed == bool(trials):
        raise InvalidInput("give the numbers of failed trials, or --failed for all of them")
    with context.connect() as db:
        from tuner.cli.snapshot import SnapshotReader, serving_workers
        from tuner.cli.summary import next_commands
        from tuner.storage.steering import retry_failed

        chosen = retry_failed(db, study, None if failed else trials)
        snapshot, workers = SnapshotReader(db, study).look(), serving_workers(db, study)
    if not chosen:
        context.note(f"study {study}: no trial has failed")
        return
    following = next(iter(next_commands(context, snapshot, workers).values()))
    context.note(f"study {study}: {len(chosen)} to run again ({', '.join(map(str, chosen))}); next: {following}")


@command.command(short_help="Write a trial's model to a folder.")
@click.argument("study")
@click.argument("trial", metavar="N|best")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option("--force", is_flag=True, help="Write into a folder that is not empty.")
@pass_context
def export(context: Context, study: str, trial: str, folder: Path, force: bool) -> None:
    """Write the model of trial N of STUDY to a folder, with the weights of its best epoch.

    In Python, tuner.load_model("DIR") gives a torch module that takes raw inputs.
    """
    if folder.exists() and not force and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"--to {folder}: is not empty; name another folder, or add --force to write into it")
    with context.connect() as db:
        from tuner.storage.studies import get_study
        from tuner.storage.trials import find_trial

        record = get_study(db, study)
        found = find_trial(db, record, trial)
    kept = checkpoint_of(context, found)

    from tuner.training import export as exporting
    from tuner.training.data import info, prepare

    spec = record.spec
    data = info(prepare(spec.data, context.settings))
    best = exporting.export(spec.space.resolve(found.params), kept, data, folder)
    weights = f"the weights of epoch {best.epoch} ({spec.objective.metric} {shown(best.value)})"
    context.note(f"exported trial {found.number} to {folder}: {weights}")
    if best.epoch != found.best_epoch:  # only of a trial that was pruned between two checkpoints
        context.note(f"its best epoch was {found.best_epoch}, of which no checkpoint was kept")


def checkpoint_of(context: Context, trial: TrialRecord) -> Path:
    """The checkpoint with the weights of a trial's best epoch. Raises NotFound, ArtifactError."""
    if trial.checkpoint is None:
        ended = f"{trial.outcome} after {trial.epochs} epochs" if trial.outcome else trial.state.lower()
        raise NotFound(f"trial {trial.number} has no checkpoint: it is {ended}, and none was written until then")
    return context.artifacts.fetch(trial.checkpoint)


def _row(trial: TrialRecord) -> dict[str, Any]:
    """What scripts get; the keys are a promise to them."""
    return {
        "number": trial.number,
        "state": trial.state,
        "value": trial.value,
        "params": trial.params,
        "epochs": trial.epochs,
        "attempts": trial.attempts,
        "outcome": trial.outcome,
        "reason": trial.reason,
        "best_epoch": trial.best_epoch,
        "deaths": trial.deaths,
        "seconds": trial.seconds,
        "worker": trial.worker,
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
    }


def _attempt(attempt: AttemptRecord) -> str:
    """`2026-05-01 12:00:03 to 12:01:10  crashed: its process was killed by SIGKILL  (host:4711)`."""
    ended = "now" if attempt.ended_at is None else f"{attempt.ended_at:%H:%M:%S}"
    how = "training" if attempt.ended is None else attempt.ended.replace("_", " ")
    why = f": {attempt.reason}" if attempt.reason else ""
    started = f"{attempt.started_at:%Y-%m-%d %H:%M:%S}"
    return f"{started} to {ended}  {how}{why}  ({attempt.worker or 'an unknown worker'})"


def _config(study: StudyRecord, trial: TrialRecord) -> dict[str, Any] | None:
    """Every knob with its value; None for a trial that has no point yet."""
    try:
        return study.resolve(trial.params).model_dump(mode="json")
    except KeyError:
        return None


def _curve(curve: Mapping[int, float]) -> str:
    """`▁▃▅▆▇█  0.52 … 0.981`: from the first epoch to the last."""
    values = list(curve.values())
    if not values:
        return "-"
    return f"{sparkline(values)}  {shown(values[0])} … {shown(values[-1])}"


def sparkline(values: Sequence[float], width: int = _SPARKLINE_WIDTH) -> str:
    """One character a value, evenly spread ones where there are more than `width`; a gap where it is not finite.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_LEVELS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        _LEVELS[math.floor((value - low) * scale + 0.5)] if math.isfinite(value) else " " for value in values
    )


def _print_from(log: Path, position: int) -> int:
    """Prints what stands behind `position`; returns where it ended."""
    if not log.is_file():
        return position
    with log.open("rb") as file:
        file.seek(position)
        while chunk := file.read(65_536):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return file.tell()
