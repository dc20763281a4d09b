"""Claims, and every write of a trial: who may train which trial, and what it has to say.

A claim is one transaction under the study's row lock, so that a study of 50 trials has exactly 50 whatever the number
of workers. `attempt` is the fencing token: it grows at every start of a trial, and a write is refused unless its
attempt still holds the trial. Every call may be repeated after a lost connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from optuna.distributions import distribution_to_json

from tuner.search.distributions import distribution
from tuner.spec.space import Point, Space
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage import claim_statements as sql
from tuner.storage.connection import Database, Row

LEASE_SECONDS = 30.0  # a trial whose worker has not been heard of for so long is handed on
MAX_DEATHS = 3  # crashes and lost leases after which a trial is given up


@dataclass(frozen=True, kw_only=True)
class Held:
    """The right to write a trial, until somebody else starts it again."""

    study_id: int
    trial_id: int
    number: int
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    held: Held
    deaths: int = 0
    checkpoint: str | None = None  # below the artifacts folder
    sampled: bool = False  # an earlier attempt wrote its point


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No trial to be had now. Unless the study has ended, other workers may still give some back."""

    state: StudyState | None  # None: the study was deleted

    @property
    def ended(self) -> bool:
        return self.state is None or self.state.ended


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What an attempt reports: epochs count from 1."""

    curve: Mapping[int, float] = field(default_factory=dict)  # epoch -> value of the objective's metric
    checkpoint: str | None = None  # below the artifacts folder; None: no new one
    attributes: Mapping[str, Any] = field(default_factory=dict)  # the pruner's: rungs reached


@dataclass(frozen=True, kw_only=True)
class Ending:
    outcome: Outcome
    value: float | None = None
    reason: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)  # shown beside the trial by the dashboard


def claim(db: Database, study_id: int, worker_id: UUID, request: UUID) -> Claim | Nothing:
    """The next trial of a study: one that lost its worker, one given back, else a new number.

    `request` names this claim: repeated with the same one, because the answer was lost, it gives the same trial.
    """
    start = {"study": study_id, "worker": str(worker_id), "request": str(request), "lease": LEASE_SECONDS}
    with db.transaction():
        while True:
            seen = next(iter(db.execute(sql.LOOK, **start)), None)
            if seen is None:
                return Nothing(state=None)
            if seen.answered is not None:
                return _claim(study_id, seen.answered)
            state = StudyState(seen.state)
            if state not in (StudyState.RUNNING, StudyState.STOPPING):  # one that stops ends what it has begun
                return Nothing(state=state)
            if seen.free is None:
                break
            if seen.free["expired"] and seen.free["deaths"] + 1 >= MAX_DEATHS:
                lost = Ending(outcome=Outcome.CRASHED, reason=f"its worker was lost {MAX_DEATHS} times")
                tell(db, _claim(study_id, seen.free).held, lost)
                continue
            db.execute(sql.TAKE, **start, trial=seen.free["trial_id"])
            taken = {**seen.free, "attempt": seen.free["attempt"] + 1}
            return _claim(study_id, {**taken, "deaths": taken["deaths"] + taken["expired"]})
        if state is StudyState.RUNNING and _affordable(seen):
            (started,) = db.execute(sql.START, **start, number=seen.trials)
            return Claim(held=Held(study_id=study_id, trial_id=started.trial_id, number=seen.trials, attempt=1))
        if seen.open:
            return Nothing(state=state)
        db.execute(sql.FINISH, study=study_id)
        return Nothing(state=StudyState.FINISHED)


def _claim(study_id: int, row: Mapping[str, Any]) -> Claim:
    held = Held(study_id=study_id, trial_id=row["trial_id"], number=row["number"], attempt=row["attempt"])
    return Claim(held=held, deaths=row["deaths"], checkpoint=row["checkpoint"], sampled=row["sampled"])


def _affordable(seen: Row) -> bool:
    """Whether the budget allows one more trial; its epochs are reserved by the row that is about to be made."""
    budget = seen.budget
    return (
        (budget.get("trials") is None or seen.trials < budget["trials"])
        and (budget.get("total_epochs") is None or seen.reserved_epochs + seen.epochs <= budget["total_epochs"])
        and (budget.get("seconds") is None or seen.seconds < budget["seconds"])
    )


def write_point(db: Database, held: Held, space: Space, point: Point, history: Mapping[str, Any]) -> bool:
    """Stores a trial's point, and what its sampler looked at; False where the trial is no longer held."""
    parameters = {parameter.name: distribution(parameter) for parameter in space.parameters if parameter.name in point}
    return _accepted(
        db.execute(
            sql.WRITE_POINT,
            **_fence(held),
            names=list(parameters),
            values=[float(kind.to_internal_repr(point[name])) for name, kind in parameters.items()],
            distributions=[distribution_to_json(kind) for kind in parameters.values()],
            attributes={"tuner:history": dict(history)},
        )
    )


def report(db: Database, held: Held, progress: Progress) -> bool:
    """Stores epochs and renews the lease; False where the trial is no longer held: nothing was written."""
    return _accepted(db.execute(sql.REPORT, **_fence(held), **_progress(progress)))


def tell(db: Database, held: Held, ending: Ending, progress: Progress | None = None) -> bool:
    """Ends a trial, with its last epochs, in one write; False where it is no longer held: nothing was written."""
    return _accepted(
        db.execute(
            sql.TELL,
            **_fence(held),
            **_progress(progress or Progress()),
            outcome=ending.outcome.value,
            state=ending.outcome.state.value,
            value=ending.value,
            reason=ending.reason,
            user_attributes={"outcome": ending.outcome.value, **ending.attributes},
            constraint={f"constraints:{ending.outcome}": 1.0} if ending.outcome.violates else {},
        )
    )


def give_back(db: Database, held: Held, *, died: bool = False, reason: str | None = None) -> bool:
    """Frees a trial to be gone on with from its checkpoint; a death is counted only where its process died."""
    return _accepted(
        db.execute(sql.GIVE_BACK, **_fence(held), died=int(died), reason=reason, state=TrialState.WAITING.value)
    )


def give_back_all(db: Database, worker_id: UUID) -> None:
    """Frees every trial that a worker which is about to end still holds."""
    db.execute(sql.GIVE_BACK_ALL, worker=str(worker_id), state=TrialState.WAITING.value)


def renew(db: Database, worker_id: UUID, study_ids: Sequence[int]) -> dict[int, StudyState | None]:
    """Says that the worker lives: its leases go on. Returns the states of the studies it serves; None: deleted."""
    rows = db.execute(sql.RENEW, worker=str(worker_id), lease=LEASE_SECONDS, studies=list(study_ids))
    states = {row.study_id: StudyState(row.state) for row in rows}
    return {study_id: states.get(study_id) for study_id in study_ids}


def _fence(held: Held) -> dict[str, Any]:
    return {"study": held.study_id, "trial": held.trial_id, "attempt": held.attempt, "lease": LEASE_SECONDS}


def _progress(progress: Progress) -> dict[str, Any]:
    return {
        "epochs": list(progress.curve),
        "values": list(progress.curve.values()),
        "checkpoint": progress.checkpoint,
        "attributes": dict(progress.attributes),
    }


def _accepted(rows: Sequence[Row]) -> bool:
    return bool(rows)
