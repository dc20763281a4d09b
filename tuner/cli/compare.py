"""`tuner compare`: the same study file searched by several methods over several seeds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli.comparison import report, to_option
from tuner.cli.context import Context, pass_context
from tuner.cli.launch import prepare_data, repeated, spec_arguments
from tuner.cli.output import format_option
from tuner.cli.worker import sensible_slots, slot_options
from tuner.errors import DatabaseLost, InvalidInput

if TYPE_CHECKING:
    from tuner.launchers.local import LocalWorkers
    from tuner.spec.search import Method
    from tuner.spec.study import StudySpec
    from tuner.storage.connection import Database
    from tuner.storage.studies import StudySummary

LOOK_SECONDS = 1.0


@click.command("compare")
@spec_arguments
@click.option("--methods", default="grid,random,tpe", show_default=True, metavar="LIST", help="What to compare.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="Search each method with so many seeds: search.seed of the file and those that follow.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Worker processes to start here; 0 makes the studies and starts nothing.",
)
@slot_options
@to_option
@format_option
@pass_context
def command(
    context: Context,
    spec_file: Path,
    overrides: tuple[str, ...],
    name: str | None,
    methods: str,
    seeds: int,
    workers: int,
    slots: int | None,
    device: str,
    hang_seconds: float | None,
    to: Path | None,
    format: str,
) -> None:
    """Search SPEC with each method and each seed, at the same budget each, and show them side by side.

    The studies are named NAME.METHOD.SEED, share one data split, and are ordinary ones in every other way. Run again,
    the command does what is missing: also with more seeds, other methods or a larger budget.
    """
    bases = _bases(spec_file, overrides, name, _methods(methods))
    slots = sensible_slots(slots, device, workers)
    url = context.database_url()
    base = next(iter(bases.values()))
    prepare_data(context, base)

    from tuner.launchers.local import LocalWorkers
    from tuner.storage.comparisons import find_comparison, launch_comparison
    from tuner.storage.connection import Database
    from tuner.versions import versions

    with Database(url, application="tuner compare") as db:
        found = find_comparison(db, base.name)
        ...
