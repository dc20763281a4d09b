"""The study file that a command is about: SPEC, `--set` and `--name`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tuner.spec.study import StudySpec


@dataclass(frozen=True, kw_only=True)
class SpecFile:
    """A study file, and what a command line changes in it."""

    path: Path
    overrides: tuple[str, ...]
    name: str | None

    def read(self, *more: str) -> StudySpec:
        """The study, with further overrides. Raises InvalidSpec with every fault."""
        from tuner.spec.study import read_spec

        return read_spec(self.path, (*self.overrides, *more), self.name)

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments that name the same study again."""
        overrides = (word for override in self.overrides for word in ("--set", override))
        return (str(self.path), *overrides, *(("--name", self.name) if self.name else ()))


def spec_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds SPEC, `--set` and `--name`; the command gets them as one argument, `spec_file`."""

    @functools.wraps(command)
    def gathering(*args: Any, path: Path, overrides: tuple[str, ...], name: str | None, **others: Any) -> Any:
        return command(*args, spec_file=SpecFile(path=path, overrides=overrides, name=name), **others)

    for option in (
        click.option("--name", metavar="NAME", help="Name the study so, whatever the file says."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the file: training.epochs=2."
        ),
        click.argument("path", metavar="SPEC", type=click.Path(path_type=Path)),
    ):
        gathering = option(gathering)
    return gathering
