"""Whether a worker can train at all: a broken machine, or a bug that every trial meets, must not eat a budget."""

from __future__ import annotations

FIRST_TRIALS = 3  # that die, and none has trained an epoch: something is wrong here


class Fitness:
    """Until one trial has trained an epoch or ended well, crashes are held against the worker, not the trial."""

    def __init__(self) -> None:
        self.proven = False
        self._died: set[int] = set()

    def prove(self) -> None:
        self.proven = True

    def died(self, trial_id: int) -> bool:
        """Takes note of a trial that died here; whether that is reason to give the worker up."""
        self._died.add(trial_id)
        return not self.proven and len(self._died) >= FIRST_TRIALS
