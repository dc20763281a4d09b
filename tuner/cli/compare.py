"""`tuner compare`: the same study file searched by several methods over several seeds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tuner.cli.comparison import report, to_option
from tuner.cli.context import Context, pass_context
from tuner.cli.launch import prepare_data, repeated, spec_arguments
from tuner.cli.output import format_option
from tuner.cli.worker import sensible_slots, slot_options
from tuner.errors import InvalidInput

if TYPE_CHECKING:
    from tuner.launchers.local import LocalWorkers
    from tuner.spec.search import Method
    from tuner.spec.study import StudySpec
    from tuner.storage.connection import Database

METHODS = "grid,random,tpe"


@click.command("compare")
@spec_arguments
@click.option("--methods", default=METHODS, show_default=True, metavar="LIST", help="What to compare.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="Search with so many seeds: search.seed of the file and those behind it.",
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
    """Search SPEC by each method with each seed, all at the same budget, and show them side by side.

    The studies are named NAME.METHOD.SEED, share one data split, and are ordinary ones in every other way. Run again,
    the command does what is missing; more seeds, other methods or a larger budget add to what is there.
    """
    from tuner.spec.study import read_spec

    @cache
    def searched_by(method: Method) -> StudySpec:
        return read_spec(spec_file, (*overrides, f"search.method={method}"), name)

    def member(method: Method, seed: int) -> StudySpec:
        base = searched_by(method)
        return base.with_search(name=f"{base.name}.{method}.{seed}", method=method, seed=seed)

    asked = _methods(methods)
    base = searched_by(asked[0])
    _check_name(base.name, asked, base.search.seed + seeds - 1)
    # A seed of each method before the next one: cut short, the comparison is still a fair one.
    pairs = [(method, base.search.seed + place) for place in range(seeds) for method in asked]
    specs = [member(*pair) for pair in pairs]
    slots = sensible_slots(slots, device, workers)
    url = context.database_url()
    prepare_data(context, base)

    from tuner.launchers.local import LocalWorkers
    from tuner.storage.comparisons import launch_comparison, list_comparisons
    from tuner.storage.connection import Database
    from tuner.versions import versions

    with Database(url, application="tuner compare") as db:
        # Those of earlier runs as well: whatever changes, the budget stays the same for all.
        earlier = [(each.method, each.seed) for found in list_comparisons(db, base.name) for each in found.members]
        specs += [member(*pair) for pair in earlier if pair not in pairs]
        launch_comparison(db, base.name, _document(base), specs, versions())
        again = ("compare", str(spec_file), *repeated(overrides, name), "--methods", methods, "--seeds", str(seeds))
        _introduce(context, base.name, specs)
        if workers:
            crew = LocalWorkers(
                [spec.name for spec in specs],
                database_url=url,
                settings=context.settings,
                slots=slots,
                device=device,
                hang_seconds=hang_seconds,
            )
            try:
                _train(context, crew, workers, db, specs, format)
            except click.Abort:
                context.note(f"what ran was given back; go on with: {context.command_line(*again)}")
                raise
        else:
            context.note(f"start a worker: {context.command_line('worker', 'start', *(spec.name for spec in specs))}")
        report(context, db, base.name, to, format)


def _methods(text: str) -> list[Method]:
    """Raises InvalidInput for a method that there is not, or none at all."""
    from tuner.spec.search import Method

    known: dict[str, Method] = {method: method for method in get_args(Method)}
    words = list(dict.fromkeys(word for word in re.split(r"[,\s]+", text) if word))
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
            raise InvalidInput(f"--methods: no search method {word!r}; {hint}")
    if not words:
        raise InvalidInput(f"--methods: name at least one of {', '.join(known)}")
    return [known[word] for word in words]


def _check_name(name: str, methods: Sequence[Method], last_seed: int) -> None:
    from tuner.spec.study_file import STUDY_NAME

    longest = f"{name}.{max(methods, key=len)}.{last_seed}"
    if not re.fullmatch(STUDY_NAME, longest):
        raise InvalidInput(
            f"--name: {name!r} is too long for a comparison: its studies are named like {longest}, "
            "and a name has at most 64 characters; give a shorter one"
        )


def _document(spec: StudySpec) -> dict[str, Any]:
    """What makes the comparison this one: the study file but for its method and budget."""
    search = {key: value for key, value in spec.document["search"].items() if key != "method"}
    return {key: value for key, value in spec.document.items() if key != "budget"} | {"search": search}


def _introduce(context: Context, name: str, specs: Sequence[StudySpec]) -> None:
    """Says what is compared, and how much of the grid its budget covers."""
    from tuner.search.tpe import STARTUP_TRIALS
    from tuner.spec.grid import Grid

    by_method = {spec.search.method: spec for spec in specs}
    seeds = sorted({spec.search.seed for spec in specs})
    listed = ", ".join(map(str, seeds)) if len(seeds) <= 5 else f"{seeds[0]} to {seeds[-1]}"
    context.note(f"comparison {name}: {', '.join(by_method)}; seeds {listed}; {len(specs)} studies")
    for method, spec in by_method.items():
        budget = {key: limit for key, limit in spec.budget.model_dump().items() if limit is not None}
        says = ", ".join(f"{limit:,} {key.replace('_', ' ')}" for key, limit in budget.items())
        if method == "grid":
            size = Grid(spec.space).size
            others = max((other.budget.trials or 0 for other in by_method.values()), default=0)
            if spec.budget.trials is not None and spec.budget.trials < size:
                says += f"; {spec.budget.trials:,} of {size:,} points: a random sample of the grid"
            elif size < others:
                says += f"; the grid has {size:,} points and ends there, below the others' {others:,} trials"
            else:
                says += f"; the grid has {size:,} points"
        elif method == "tpe":
            says += f"; the first {STARTUP_TRIALS} are random search's"
        context.note(f"  {method:<7} {says}")


def _train(
    context: Context, crew: LocalWorkers, workers: int, db: Database, specs: Sequence[StudySpec], format: str
) -> None:
    """Starts the workers and stays until they end. Raises WorkersFailed where they do before the studies do."""
    from tuner.cli.attend import attend
    from tuner.cli.compare_progress import Progress

    progress = Progress(db, specs, stdout=format == "table", quiet=context.quiet)
    if progress.is_done():
        return
    with progress:
        crew.start(workers)
        attend(crew, progress.follow(), progress.say)
    if not progress.is_done():
        raise crew.failure()
