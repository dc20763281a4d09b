"""Deleting: said beforehand, asked for, and never by a script that did not say --yes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from tuner.errors import InvalidInput

Command = TypeVar("Command", bound=Callable[..., Any])


def delete_options(command: Command) -> Command:
    """Adds `--dry-run` and `--yes`."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Only say what would be deleted."),
    ):
        command = option(command)
    return command


def is_agreed(what: str, *, dry_run: bool, yes: bool) -> bool:
    """Whether to delete. Raises InvalidInput where nobody can be asked, and click.Abort where the answer is no."""
    if dry_run:
        click.echo(f"would delete {what}")
        return False
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInput(f"nothing was deleted: say --yes to delete {what}")
        click.confirm(f"delete {what}?", abort=True, err=True)
    return True
