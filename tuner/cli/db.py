"""`tuner db`: the database server, above all the embedded one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import emit_one, format_option
from tuner.errors import DatabaseError, InvalidInput

if TYPE_CHECKING:
    from tuner.storage.server import EmbeddedServer


@click.group("db")
def command() -> None:
    """Start, stop and upgrade the database."""


@command.command(short_help="Start the embedded server.")
@pass_context
def start(context: Context) -> None:
    """Start the embedded server, unless it runs, and print its URL."""
    if _given(context):
        raise InvalidInput("--database or TUNER_DATABASE_URL names a server that tuner does not start; unset it")
    click.echo(context.database_url())


@command.command(short_help="Stop the embedded server.")
@pass_context
def stop(context: Context) -> None:
    """Stop the embedded server; running workers wait for it to come back."""
    context.note("stopped" if _embedded(context).stop() else "it was not running")


@command.command(short_help="Say whether the server runs, and where.")
@format_option
@pass_context
def status(context: Context, format: str) -> None:
    """Say whether the server runs, and under which URL; starts nothing."""
    given = _given(context)
    emit_one(_named(given) if given else _own(_embedded(context)), format)


@command.command(short_help="Bring the tables to this version's form.")
@pass_context
def upgrade(context: Context) -> None:
    """Bring the tables to the form that this version of tuner and of Optuna need."""
    from tuner.storage.schema import upgrade_schema

    upgrade_schema(_given(context) or _embedded(context).start())
    context.note("the tables are current")


def _given(context: Context) -> str | None:
    """The URL of a server that somebody else runs."""
    from tuner.storage.url import refuse_password

    if context.database:
        refuse_password(context.database)
    return context.database or context.settings.database_url


def _embedded(context: Context) -> EmbeddedServer:
    from tuner.storage.server import EmbeddedServer

    return EmbeddedServer(context.settings.server)


def _own(server: EmbeddedServer) -> dict[str, object]:
    status = server.status()
    return {
        "running": status.running,
        "url": status.url,
        "version": status.version,
        "pid": status.pid,
        "folder": str(status.folder),
        "embedded": True,
    }


def _named(url: str) -> dict[str, object]:
    """A server that somebody else runs; its password stays where it is."""
    from tuner.storage.connection import Database

    version, problem = None, None
    with Database(url) as db:
        try:
            version = db.execute("SELECT current_setting('server_version') AS version")[0].version
        except DatabaseError as error:
            problem = str(error)
    status: dict[str, object] = {"running": problem is None, "url": db.address.without_secrets, "version": version}
    return {**status, "embedded": False, **({"problem": problem} if problem else {})}
