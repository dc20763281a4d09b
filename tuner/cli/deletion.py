"""Deleting: said beforehand, asked for, and never by a script that did not say --yes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.errors import InvalidInput

if TYPE_CHECKING:
    from tuner.storage.connection import Database

LET_GO_SECONDS = 15.0  # live workers let go of a study within a heartbeat; others have nothing more to write

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


def end_training(db: Database, names: Sequence[str]) -> None:
    """Cancels what still trains of studies that are to be deleted, and waits: what it wrote later would stay."""
    from tuner.states import StudyState
    from tuner.storage.steering import set_state
    from tuner.storage.studies import get_study, spent

    trained = [study for study in (get_study(db, name) for name in names) if spent(db, study.study_id).open]
    for study in trained:
        set_state(db, study.name, StudyState.CANCELLED)
    deadline = time.monotonic() + LET_GO_SECONDS
    while any(spent(db, study.study_id).open for study in trained) and time.monotonic() < deadline:
        time.sleep(0.1)
