"""Shows a comparison while it runs: a bar on a terminal, and a line for each study that ends.

Imported by `tuner compare` when it runs, never at the start of `tuner`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console

from tuner.cli.output import duration, show
from tuner.errors import DatabaseLost
from tuner.spec.study import StudySpec
from tuner.states import TrialState
from tuner.storage.connection import Database
from tuner.storage.studies import StudySummary, list_studies

LOOK_SECONDS = 1.0


class Progress:
    """Some studies, looked at once a second."""

    def __init__(self, db: Database, specs: Sequence[StudySpec], *, stdout: bool, quiet: bool) -> None:
        self._db = db
        self._names = {spec.name for spec in specs}
        budgets = [spec.budget.trials for spec in specs]
        self._trials = None if None in budgets else sum(filter(None, budgets))
        self._quiet = quiet
        self._console = Console(file=sys.stdout if stdout else sys.stderr)
        is_drawn = self._console.is_terminal and not self._console.is_dumb_terminal and not quiet
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=2,
            transient=True,
            disable=not is_drawn,
        )
        self._task = self._bar.add_task("", total=self._trials)
        self._ended = {study.name for study in self._look() if study.state.ended}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def is_done(self) -> bool:
        """Whether all studies have ended."""
        return all(study.state.ended for study in self._look())

    def too_many_failures(self) -> str | None:
        """Why a study was paused by its workers: `study digits.tpe.0 was paused: 5 trials failed …`."""
        paused = (f"study {study.name} was paused: {study.reason}" for study in self._look() if study.reason)
        return next(paused, None)

    def follow(self, pause: Callable[[float], object]) -> Iterator[None]:
        """Looks once a second, and shows what it sees, until all studies have ended or failures have paused one.

        Waits for a lost database. `pause` waits so many seconds, or less where there may be something to see.
        """
        is_lost = False
        while True:
            try:
                studies = self._look()
            except DatabaseLost as error:
                if not is_lost:
                    self.say(str(error))
                is_lost = True
            else:
                is_lost = False
                self._show(studies)
                if all(study.state.ended for study in studies) or any(study.reason for study in studies):
                    return
            yield
            pause(LOOK_SECONDS)

    def say(self, message: str) -> None:
        """A line of its own, above the bar."""
        if not self._quiet:
            self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _look(self) -> list[StudySummary]:
        return [study for study in list_studies(self._db) if study.name in self._names]

    def _show(self, studies: Sequence[StudySummary]) -> None:
        for study in studies:
            if study.state.ended and study.name not in self._ended:
                self._ended.add(study.name)
                self.say(_line(study))
        ended = sum(map(_ended_trials, studies))
        of_all = f" of {self._trials:,}" if self._trials else ""
        self._bar.update(
            self._task,
            completed=ended,
            description=f"{len(self._ended)} of {len(studies)} studies, {ended:,}{of_all} trials",
        )


def _ended_trials(study: StudySummary) -> int:
    return sum(count for state, count in study.trials.items() if state.finished)


def _line(study: StudySummary) -> str:
    """`digits-cnn.tpe.0  finished  40 trials, 8 pruned, 0 failed  best accuracy 0.9852  1 m 05 s`."""
    counts = f"{study.trials[TrialState.PRUNED]} pruned, {study.trials[TrialState.FAIL]} failed"
    best = f"best {study.metric} {show(study.best_value)}"
    return f"{study.name}  {study.state}  {_ended_trials(study)} trials, {counts}  {best}  {duration(study.seconds)}"
