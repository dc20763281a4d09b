"""`tuner compare`: the same study file searched by several methods over several seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tuner.cli.comparison import report, to_option
from tuner.cli.context import Context, pass_context
from tuner.cli.launch import prepare_data
from tuner.cli.output import format_option
from tuner.cli.slots import Crew, crew_options
from tuner.cli.spec_file import SpecFile, spec_arguments
from tuner.errors import InvalidInput, TooManyFailures, WorkersFailed

if TYPE_CHECKING:
    from tuner.launchers.local import LocalWorkers
    from tuner.spec.search import Method
    from tuner.spec.study import StudySpec
    from tuner.storage.connection import Database

METHODS = "grid,random,tpe"


@click.command("compare", short_help="Search a file by several methods.")
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
@crew_options
@to_option
@format_option
@pass_context
def command(
    context: Context,
    spec_file: SpecFile,
    methods: str,
    seeds: int,
    crew: Crew,
    to: Path | None,
    format: str,
) -> None:
    """Search SPEC by each method with each seed, all at the same budget, and show them side by side.

    The studies are named NAME.METHOD.SEED, share one data split, and are ordinary ones in every other way. Run again,
    the command does what is missing; more seeds, other methods or a larger budget add to what is there.
    """
    asked = _methods(methods)
    budget = _shared_budget(context, spec_file, asked)

    @cache
    def searched_by(method: Method) -> StudySpec:
        return spec_file.read(f"search.method={method}", *budget)

    def member(method: Method, seed: int) -> StudySpec:
        base = searched_by(method)
        return base.with_search(name=f"{base.name}.{method}.{seed}", method=method, seed=seed)

    base = searched_by(asked[0])
    _check_name(base.name, asked, base.search.seed + seeds - 1)
    # A seed of each method before the next one: cut short, the comparison is still a fair one.
    pairs = [(method, base.search.seed + place) for place in range(seeds) for method in asked]
    specs = [member(*pair) for pair in pairs]

    from tuner.cli.attend import early_workers

    with early_workers(context, crew) as workers, context.connect("tuner compare") as db:
        from tuner.storage.comparisons import launch_comparison, list_comparisons
        from tuner.versions import versions

        prepare_data(context, base)
        # Those of earlier runs as well: whatever changes, the budget stays the same for all.
        earlier = [(each.method, each.seed) for found in list_comparisons(db, base.name) for each in found.members]
        specs += [member(*pair) for pair in earlier if pair not in pairs]
        launch_comparison(db, base.name, _document(base), specs, versions())
        again = context.command_line(
            "compare", *spec_file.words, *crew.words, "--methods", methods, "--seeds", str(seeds)
        )
        _introduce(context, base.name, specs)
        if crew.workers:
            try:
                _train(context, workers, db, specs, format)
            except click.Abort:
                context.note(f"what ran was given back; go on with: {again}")
                raise
            except WorkersFailed:
                context.note(f"go on with: {again}")
                raise
        else:
            context.note(f"start a worker: {context.command_line('worker', 'start', *(spec.name for spec in specs))}")
        report(context, db, base.name, to, format)


def _methods(text: str) -> list[Method]:
    """Raises InvalidInput for a method that there is not, or none at all."""
    from tuner.spec.faults import one_of
    from tuner.spec.search import Method

    known: dict[str, Method] = {method: method for method in get_args(Method)}
    words = list(dict.fromkeys(word for word in re.split(r"[,\s]+", text) if word))
    for word in words:
        if word not in known:
            raise InvalidInput(f"--methods: no search method {word!r}; {one_of(word, known)}")
    if not words:
        raise InvalidInput(f"--methods: name at least one of {', '.join(known)}")
    return [known[word] for word in words]


def _shared_budget(context: Context, spec_file: SpecFile, methods: Sequence[Method]) -> tuple[str, ...]:
    """The overrides that give every method the size of the grid, where that is the only end that the file has."""
    from tuner.spec.source import read_source

    if "grid" not in methods:
        return ()
    points = spec_file.read("search.method=grid").budget.trials
    limits = read_source(spec_file.path, spec_file.overrides).document.get("budget", {})
    if any(limit is not None for name, limit in limits.items() if name != "failures"):  # which end no study
        return ()
    context.note(f"the file names no budget: each study has as many trials as the grid has points, {points:,}")
    return (f"budget.trials={points}",)


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
            if spec.budget.trials is not None and spec.budget.trials <= STARTUP_TRIALS:
                says += f": with {spec.budget.trials} trials the same as random"
        context.note(f"  {method:<7} {says}")


def _train(context: Context, workers: LocalWorkers, db: Database, specs: Sequence[StudySpec], format: str) -> None:
    """Sets the workers to work and stays until they end. Raises WorkersFailed where they do before the studies do."""
    from tuner.cli.attend import attend
    from tuner.cli.compare_progress import Progress

    progress = Progress(db, specs, stdout=format == "table", quiet=context.quiet)
    if progress.is_done():
        return
    with progress:
        workers.serve([spec.name for spec in specs], db.address.url)
        attend(workers, progress.follow(workers.wait), progress.say)
    if paused := progress.too_many_failures():
        raise TooManyFailures(paused)
    if not progress.is_done():
        raise workers.failure()
