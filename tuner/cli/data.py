"""`tuner data`: the data sets that a study file may name."""

from __future__ import annotations

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import emit, format_option
from tuner.errors import NotFound


@click.group("data")
def command() -> None:
    """Look at the data sets and make them ready."""


@command.command("list", short_help="List the data sets.")
@format_option
@pass_context
def list_(context: Context, format: str) -> None:
    """List the data sets; ready: prepared in the cache, with the default configuration."""
    from pydantic import TypeAdapter

    from tuner.spec.config import DataConfig
    from tuner.training.data import BUILDERS, info, location

    rows = []
    for name in BUILDERS:
        config = TypeAdapter(DataConfig).validate_python({"name": name})
        folder = location(config, context.settings)
        ready = folder.is_dir()
        examples = sum(info(folder).sizes.values()) if ready else None
        rows.append({"name": name, "task": config.task, "examples": examples, "ready": ready, "folder": folder})
    emit(rows, ("name", "task", "examples", "ready"), format)


@command.command(short_help="Download and prepare a data set.")
@click.argument("name")
@pass_context
def fetch(context: Context, name: str) -> None:
    """Download and prepare the data set NAME with its default configuration, and print its folder.

    Its files are taken from TUNER_DATA where they are there. With no network, the message says which file to put where.
    """
    from pydantic import TypeAdapter

    from tuner.spec.config import DataConfig
    from tuner.training.data import BUILDERS, prepare

    if name not in BUILDERS:
        raise NotFound(f"no data set {name!r}; there are {', '.join(BUILDERS)}")
    click.echo(prepare(TypeAdapter(DataConfig).validate_python({"name": name}), context.settings))
