"""Shows a study while it runs: a live view on a terminal, a line for each trial that ends anywhere else.

Imported by commands when they run, never at the start of `tuner`.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self, TextIO

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from tuner.cli.live_view import line, render
from tuner.cli.snapshot import Snapshot, SnapshotReader
from tuner.cli.summary import expected_end
from tuner.states import StudyState


class View:
    """Shows nothing: the view of `-q`, and what the others are made from."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        """Shows a newer state of the study."""

    def say(self, message: str) -> None:
        """Tells the person who looks what is no part of the study's state."""


def open_view(stream: TextIO, *, old_trials: bool) -> View:
    """The view that suits where it goes; `old_trials`: whether lines begin with the trials that ended before."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return LiveView(Console(file=stream))
    return PlainView(stream, old_trials=old_trials)


def watch(reader: SnapshotReader, view: View) -> None:
    """Shows a study until it has ended."""
    with view:
        for snapshot in reader.follow():
            view.show(snapshot)


class LiveView(View):
    """Drawn again in its place; gone once it is left."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(_Fitted(snapshot), refresh=True)

    def say(self, message: str) -> None:
        self._live.console.print(message, markup=False, highlight=False)


class _Fitted:
    """A snapshot, to be rendered for the size that the terminal has by then."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield render(self._snapshot, console.width, console.height)


class PlainView(View):
    """A line for each trial that ends, in the order in which they end."""

    def __init__(self, stream: TextIO, *, old_trials: bool) -> None:
        self._stream = stream
        self._shown = 0 if old_trials else None  # None: as many as the first look finds
        self._trouble: str | None = None
        self._end: str | None = None
        self._state = StudyState.RUNNING

    def show(self, snapshot: Snapshot) -> None:
        if self._shown is None:
            self._shown = len(snapshot.finished)
        for trial in snapshot.finished[self._shown :]:
            click.echo(line(trial, snapshot.epochs), file=self._stream)
        self._shown = len(snapshot.finished)
        if snapshot.state is not self._state and not snapshot.state.ended:
            self.say(f"study {snapshot.name}: {snapshot.state}" + (f" ({snapshot.reason})" if snapshot.reason else ""))
        self._state = snapshot.state
        if self._end is None and (end := expected_end(snapshot)):  # once: it is said as soon as it is known
            self.say(f"study {snapshot.name}: {end}")
            self._end = end
        if snapshot.trouble and not self._trouble:
            self.say(snapshot.trouble)
        self._trouble = snapshot.trouble

    def say(self, message: str) -> None:
        click.echo(message, err=True)
