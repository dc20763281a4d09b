"""Whether a worker can train at all: a broken machine, or a bug that every trial meets, must not eat a budget."""

from __future__ import annotations

FIRST_DEATHS = 3  # and no trial has trained an epoch: something is wrong here


class Fitness:
    """Until one trial has trained an epoch or ended in order, crashes are held against the worker too."""

    def __init__(self) -> None:
        self.proven = False
        self._deaths = 0

    def prove(self) -> None:
        self.proven = True

    def died(self) -> bool:
        """Takes note of a trial that died here; whether that is reason to give the worker up."""
        self._deaths += 1
        return not self.proven and self._deaths >= FIRST_DEATHS
