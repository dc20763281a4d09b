"""`tuner comparison`: what comparisons have found, again and again from the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.deletion import delete_options, end_training, is_agreed
from tuner.cli.output import Column, emit, emit_one, format_option
from tuner.errors import ArtifactError

if TYPE_CHECKING:
    from tuner.analysis.reading import Comparison
    from tuner.storage.connection import Database

Command = TypeVar("Command", bound=Callable[..., Any])

FEW_SEEDS = 3  # three against three: the least two-sided p of a rank test (Mann-Whitney) is 2/20


def to_option(command: Command) -> Command:
    """Adds `--to FOLDER`."""
    option = click.option(
        "--to",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Where to write comparison.csv, anytime.svg and anytime.png.  [default: beside the artifacts]",
    )
    return option(command)


@click.group("comparison")
def command() -> None:
    """Look at comparisons, or delete them."""


@command.command("list")
@format_option
@pass_context
def list_(context: Context, format: str) -> None:
    """List the comparisons."""
    with context.connect() as db:
        from tuner.storage.comparisons import list_comparisons
        from tuner.storage.studies import list_studies

        comparisons = list_comparisons(db)
        ended = {study.name for study in list_studies(db) if study.state.ended}
    rows = [
        {
            "name": comparison.name,
            "methods": list(dict.fromkeys(member.method for member in comparison.members)),
            "seeds": len({member.seed for member in comparison.members}),
            "studies": [member.study for member in comparison.members],
            "size": len(comparison.members),
            "ended": sum(member.study in ended for member in comparison.members),
            "created_at": comparison.created_at,
        }
        for comparison in comparisons
    ]
    emit(
        rows, ("name", "methods", "seeds", Column("size", "studies"), "ended", Column("created_at", "created")), format
    )


@command.command(short_help="Show what each method has found.")
@click.argument("name")
@to_option
@format_option
@pass_context
def show(context: Context, name: str, to: Path | None, format: str) -> None:
    """Show what each method of the comparison NAME has found, and write its curves and their figures."""
    with context.connect() as db:
        report(context, db, name, to, format)


@command.command(short_help="Delete a comparison with its studies.")
@click.argument("name")
@delete_options
@pass_context
def delete(context: Context, name: str, dry_run: bool, yes: bool) -> None:
    """Delete the comparison NAME with its studies, their trials, checkpoints and logs.

    The table and the figures that `tuner compare` wrote stay.
    """
    with context.connect() as db:
        from tuner.storage.comparisons import delete_comparison, get_comparison
        from tuner.storage.studies import spent

        members = get_comparison(db, name).members
        trials = sum(spent(db, member.study_id).trials for member in members)
        what = f"comparison {name} with {len(members)} studies and {trials} trials"
        if is_agreed(what, dry_run=dry_run, yes=yes):
            files = context.artifacts  # before anything is deleted: it may not open
            end_training(db, [member.study for member in members])
            for study in delete_comparison(db, name):
                files.remove_study(study.folder)
            context.note(f"deleted {what}")


def report(context: Context, db: Database, name: str, to: Path | None, format: str) -> None:
    """Prints a comparison and writes its files.

    Raises NotFound, or ArtifactError where the files cannot be written.
    """
    from tuner.analysis.reading import read_comparison
    from tuner.analysis.summary import summarize

    comparison = read_comparison(db, name)
    rows = [vars(summary) for summary in summarize(comparison.runs, comparison.direction)]
    files = write_files(comparison, to or context.settings.artifacts / "comparisons" / name)
    if format == "table":
        _print(comparison, rows, files)
        return
    document = {
        "comparison": name,
        "metric": comparison.metric,
        "direction": comparison.direction,
        "unfinished": comparison.unfinished or None,
        "missing": comparison.missing,
        "methods": rows,
        "studies": [run.study for run in comparison.runs],
        "note": _claim(rows),
        "files": files,
    }
    emit_one(document, format)


def write_files(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Writes the table of trials and the picture of the curves.

    Raises ArtifactError.
    """
    from tuner.analysis.export import to_csv
    from tuner.analysis.plots import Heading, draw, to_png, to_svg

    figure = draw(
        comparison.runs,
        Heading(
            comparison=comparison.name,
            metric=comparison.metric,
            direction=comparison.direction,
            note=comparison.note,
        ),
    )
    contents = {
        "comparison.csv": to_csv(comparison.runs).encode(),
        "anytime.svg": to_svg(figure),
        "anytime.png": to_png(figure),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise ArtifactError(f"cannot write to {folder}: {error.strerror}") from error
    return {name: folder / name for name in contents}


def _print(comparison: Comparison, rows: Sequence[Mapping[str, Any]], files: Mapping[str, Path]) -> None:
    better = "higher" if comparison.direction == "maximize" else "lower"
    click.echo(f"{comparison.name}: best validation {comparison.metric} of each seed ({better} is better)\n")
    columns: list[Column | str] = [
        "method",
        "seeds",
        Column("best_median", "median"),
        Column("best_min", "min"),
        Column("best_max", "max"),
    ]
    if any(row["best_q1"] is not None for row in rows):
        columns += [Column("best_q1", "25 %"), Column("best_q3", "75 %")]
    emit(rows, [*columns, "trials", "pruned", "failed", "epochs", Column("seconds", "training")], "table")
    click.echo("\nbest: of complete trials; trials, epochs and training: summed over seeds, pruned and failed included")
    click.echo(_claim(rows))
    if comparison.note:
        click.echo(comparison.note)
    for path in files.values():
        click.echo(f"  {path}")


def _claim(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the figures do not say."""
    seeds = min((row["seeds"] for row in rows), default=0)
    counted = "1 seed" if seeds == 1 else f"{seeds} seeds"
    few = f": with {counted} for each method, no rank test could tell them apart" if 0 < seeds <= FEW_SEEDS else ""
    return f"This describes what was seen and claims no winner{few}."
