"""States and outcomes that the database records, shared by every package."""

from __future__ import annotations

from enum import StrEnum


class StudyState(StrEnum):
    RUNNING = "running"  # trials may be claimed
    PAUSED = "paused"  # running trials were given back; resume goes on
    STOPPING = "stopping"  # running trials end, no new ones begin
    CANCELLED = "cancelled"  # running trials are ended now
    FINISHED = "finished"  # the budget is spent and no trial runs

    @property
    def ended(self) -> bool:
        return self in (StudyState.CANCELLED, StudyState.FINISHED)


class TrialState(StrEnum):
    """Optuna's own, as they stand in its schema."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"

    @property
    def finished(self) -> bool:
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Outcome(StrEnum):
    """Why a trial ended: Optuna's states say too little."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"  # the loss or a metric became NaN or infinite
    OUT_OF_MEMORY = "out_of_memory"
    INFEASIBLE = "infeasible"  # no such model can be built
    CRASHED = "crashed"  # its process died, or its code raised
    TIMED_OUT = "timed_out"  # it made no step within its limit
    CANCELLED = "cancelled"

    @property
    def state(self) -> TrialState:
        match self:
            case Outcome.COMPLETE:
                return TrialState.COMPLETE
            case Outcome.PRUNED | Outcome.DIVERGED | Outcome.OUT_OF_MEMORY | Outcome.INFEASIBLE:
                return TrialState.PRUNED
            case Outcome.CRASHED | Outcome.TIMED_OUT | Outcome.CANCELLED:
                return TrialState.FAIL

    @property
    def fails(self) -> bool:
        """Something is broken, and other trials may fail of it too."""
        return self in (Outcome.CRASHED, Outcome.TIMED_OUT)

    @property
    def violates(self) -> bool:
        """Stored as a violated constraint, so that the sampler learns to avoid such points (TPE ignores FAIL)."""
        return self in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY, Outcome.INFEASIBLE)
