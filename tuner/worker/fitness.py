"""Whether a worker can train at all: a broken machine, or a bug that every trial meets, must not eat a budget."""

from __future__ import annotations

from tuner.errors import TunerError, WorkersFailed, WorkerUnfit

FIRST_DEATHS = 3  # and no trial has trained an epoch: something is wrong here
EARLY_DEATHS = 3  # children that die, one after the other, before they are up: likewise


class Fitness:
    """Until one trial has trained an epoch or ended in order, crashes are held against the worker too."""

    def __init__(self) -> None:
        self.proven = False
        self._deaths = 0
        self._early_deaths = 0

    def prove(self) -> None:
        self.proven = True

    def child_is_up(self) -> None:
        self._early_deaths = 0

    def child_died_early(self, reason: str) -> TunerError | None:
        """Takes note of a child that died before it was up; whether that is reason to give the worker up."""
        self._early_deaths += 1
        if self._early_deaths < EARLY_DEATHS:
            return None
        return WorkersFailed(f"{EARLY_DEATHS} training processes ended before they were up: {reason}")

    def died(self, reason: str) -> TunerError | None:
        """Takes note of a trial that died here, or of a whole stack at once; likewise."""
        self._deaths += 1
        if self.proven or self._deaths < FIRST_DEATHS:
            return None
        return WorkerUnfit(
            f"trials died {FIRST_DEATHS} times on this worker before any trained an epoch, the last time: {reason}"
        )
