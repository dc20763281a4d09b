"""What every command knows: the environment and the options that stand before the command's name."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tuner.settings import Settings
    from tuner.storage.artifacts import ArtifactStore
    from tuner.storage.connection import Database


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: Settings
    quiet: bool  # -q: results and errors only
    verbose: bool  # -v: workers log every epoch
    database: str | None  # --database

    def database_url(self) -> str:
        """URL of the database to use, with its schema in place; starts the embedded server if none is named.

        Raises InvalidInput for a password in `--database`, DatabaseError for a server that cannot be used.
        """
        from tuner.storage import open_database

        return open_database(self.settings, self.database)

    def connect(self, application: str = "tuner") -> Database:
        """A connection to that database; raises what `database_url` does."""
        url = self.database_url()

        from tuner.storage.connection import Database

        return Database(url, application=application)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Where checkpoints and trials' logs are; what is fetched lives as long as this context.

        Raises ArtifactError.
        """
        from tuner.storage.artifacts import open_store

        return open_store(self.settings)

    @property
    def loudness(self) -> list[str]:
        """The options -q and -v again, for workers that are started here."""
        options = {"--quiet": self.quiet, "--verbose": self.verbose}
        return [option for option, is_given in options.items() if is_given]

    def note(self, message: str) -> None:
        """Says on stderr what is worth knowing but is no result."""
        if not self.quiet:
            click.echo(message, err=True)

    def command_line(self, *words: str) -> str:
        """A command to paste into a shell that reaches the same database: `tuner study show digits-cnn`."""
        database = ("--database", self.database) if self.database else ()
        return shlex.join(("tuner", *database, *words))


pass_context = click.make_pass_decorator(Context)
