"""Claims, and every write of a trial: who may train which trial, and what it has to say.

A claim is one transaction under the study's row lock, so that a study of 50 trials has exactly 50 whatever the number
of workers. `attempt` is the fencing token: it grows at every start of a trial, and a write is refused unless its
attempt still holds the trial. Every call may be repeated after a lost connection.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from optuna.distributions import distribution_to_json

from tuner.search.distributions import distribution
from tuner.spec.space import Point, Space
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage import claim_statements
from tuner.storage import trial_statements as sql
from tuner.storage.connection import Database, Row
from tuner.storage.history import HISTORY_KEY
from tuner.storage.statement_parts import CANCELLED_REASON, LOST_REASON

log = logging.getLogger("tuner.storage")

GIVEN_BACK = "given_back"  # the end of an attempt that nothing went wrong with
MAX_DEATHS = 3  # crashes and lost leases after which a trial is given up, if they came on two workers


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
    largest_stack: int | None = None  # so many trials may train together where it is among them; None: any number


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What a study has left to give out, after a claim."""

    waiting: Sequence[int] = ()  # numbers that nobody holds: given back, lost or skipped
    next: int = 0  # the lowest new number
    numbers: int = 0  # that the budget allows from there on
    to_train: int = 0  # trials that have not ended, whoever holds them, and all that may still begin
    slots: int = 1  # of all live workers that serve the study

    @property
    def share(self) -> int:
        """Trials of one slot, where all that is to be trained is divided among the slots."""
        return -(-self.to_train // self.slots)


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No trial to be had now. Unless the study has ended, other workers may still give some back."""

    state: StudyState | None  # None: the study was deleted
    open: int = 0  # trials that were begun and have not ended
    reason: str | None = None  # why it was paused, where no person did it

    @property
    def ended(self) -> bool:
        return self.state is None or (self.state.ended and not self.open)


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


def claim(
    db: Database,
    study_id: int,
    worker_id: UUID,
    request: UUID,
    *,
    most: int = 1,
    numbers: Sequence[int] | None = None,
    beside: Sequence[Held] = (),
    largest_stack: int | None = None,
) -> tuple[Sequence[Claim] | Nothing, Supply]:
    """The next trial of a study: one that lost its worker, one given back or skipped, else a new number.

    With `numbers`, trials to train together with those that a slot holds, `beside`: at most so many, of these numbers,
    the lowest first. New ones are given out as far as the budget allows; those skipped below them wait, and are free
    for all. Only trials that bear stacks as large as those beside them are given.

    `request` names this claim: repeated with the same one, because the answer was lost, it gives the same trials.
    """
    call = {
        "study": study_id,
        "worker": worker_id,
        "request": request,
        "max_deaths": MAX_DEATHS,
        "most": most,
        "numbers": None if numbers is None else list(numbers),
        "beside": beside[0].trial_id if beside else None,
        "largest_stack": largest_stack,
    }
    while True:
        rows = db.execute(claim_statements.CLAIM, **call)
        if not rows:
            return Nothing(state=None), Supply()
        row = rows[0]
        if row.trial_id is None:
            return Nothing(state=StudyState(row.state), open=row.open, reason=row.reason), _supply(row)
        usable = [claim for row in rows if (claim := _usable(db, study_id, row)) is not None]
        if usable:
            return usable, _supply(row)


def supply(db: Database, study_id: int) -> Supply:
    """What a study has left to give out."""
    rows = db.execute(claim_statements.SUPPLY, study=study_id)
    return _supply(rows[0]) if rows else Supply()


def _supply(row: Row) -> Supply:
    return Supply(waiting=row.waiting, next=row.next, numbers=row.numbers, to_train=row.to_train, slots=row.slots)


def _usable(db: Database, study_id: int, row: Row) -> Claim | None:
    """The trial, unless there is nothing more to train of it, or not here."""
    held = Held(study_id=study_id, trial_id=row.trial_id, number=row.number, attempt=row.attempt)
    if TrialState(row.trial_state or TrialState.RUNNING).finished:
        adopt(db, held)
    elif row.state == StudyState.CANCELLED:
        tell(db, held, Ending(outcome=Outcome.CANCELLED, reason=CANCELLED_REASON))
    elif row.deaths >= MAX_DEATHS and (row.dead_workers > 1 or not row.elsewhere):
        ending = _given_up(row)
        log.warning("trial %d %s: %s", held.number, ending.outcome, ending.reason)
        tell(db, held, ending)
    elif row.deaths >= MAX_DEATHS and row.died_here:
        give_back(db, held, reason="left to another worker: it died here too often")
    else:
        return Claim(
            held=held,
            deaths=row.deaths,
            checkpoint=row.checkpoint,
            sampled=row.sampled,
            largest_stack=row.largest_stack,
        )
    return None


def _given_up(row: Row) -> Ending:
    ended, reason = row.last_death
    outcome = Outcome.TIMED_OUT if ended == Outcome.TIMED_OUT else Outcome.CRASHED
    # The end of an attempt whose lease has just run out is written together with this claim, and not read yet.
    return Ending(outcome=outcome, reason=f"given up after {row.deaths} deaths, the last: {reason or LOST_REASON}")


def adopt(db: Database, held: Held) -> None:
    """Takes over the end that another program gave to a trial which this attempt holds; nothing where none did."""
    db.execute(sql.ADOPT, **_fence(held))


def write_points(db: Database, space: Space, points: Mapping[Held, tuple[Point, Mapping[str, Any]]]) -> Set[Held]:
    """Stores the points of a claim's trials, and what their sampler looked at; returns those that are still held."""
    if not points:
        return frozenset()
    kinds = {parameter.name: distribution(parameter) for parameter in space.parameters}
    texts = {name: distribution_to_json(kind) for name, kind in kinds.items()}
    values = [
        (held.trial_id, name, float(kind.to_internal_repr(point[name])), texts[name])
        for held, (point, _) in points.items()
        for name, kind in kinds.items()
        if name in point
    ]
    owners, names, numbers, distributions = zip(*values, strict=True) if values else ((), (), (), ())
    rows = db.execute(
        sql.WRITE_POINTS,
        trials=[held.trial_id for held in points],
        attempts=[held.attempt for held in points],
        looked_at=[json.dumps(history) for _, history in points.values()],
        key=HISTORY_KEY,
        owners=list(owners),
        names=list(names),
        values=list(numbers),
        distributions=list(distributions),
    )
    accepted = {row.trial_id for row in rows}
    return {held for held in points if held.trial_id in accepted}


def report(db: Database, held: Held, progress: Progress) -> bool:
    """Stores epochs and renews the lease; False where the trial is no longer held: nothing was written."""
    return _accepted(db.execute(sql.REPORT, **_fence(held), **_progress(progress)))


def tell(db: Database, held: Held, ending: Ending, progress: Progress | None = None) -> bool:
    """Ends a trial, with its last epochs, in one write; False where it is no longer held: nothing was written.

    Pauses the study where that makes more failures than its budget allows.
    """
    return _accepted(
        db.execute(
            sql.TELL,
            **_fence(held),
            **_progress(progress or Progress()),
            outcome=ending.outcome.value,
            failure=int(ending.outcome.fails),
            state=ending.outcome.state.value,
            value=ending.value,
            reason=ending.reason,
            user_attributes={"outcome": ending.outcome.value, **ending.attributes},
            constraint={f"constraints:{ending.outcome}": 1.0} if ending.outcome.violates else {},
        )
    )


def give_back(
    db: Database,
    held: Held,
    *,
    death: Outcome | None = None,
    reason: str | None = None,
    largest_stack: int | None = None,
) -> bool:
    """Frees a trial to be gone on with from its checkpoint; `death`: its process crashed or hung, which is counted.

    `largest_stack`: from now on it is trained with fewer others, for one of those that it was trained with did harm.
    """
    ended = GIVEN_BACK if death is None else death.value
    return _accepted(
        db.execute(
            sql.GIVE_BACK,
            **_fence(held),
            died=int(death is not None),
            ended=ended,
            reason=reason,
            largest_stack=largest_stack,
        )
    )


def give_back_all(db: Database, worker_id: UUID, reason: str) -> None:
    """Frees every trial that a worker which is about to end still holds."""
    db.execute(sql.GIVE_BACK_ALL, worker=worker_id, died=0, ended=GIVEN_BACK, reason=reason, largest_stack=None)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a study stands that a worker serves."""

    state: StudyState | None  # None: it was deleted
    highest: int = -1  # number given out


def renew(db: Database, worker_id: UUID, study_ids: Sequence[int]) -> dict[int, Standing] | None:
    """Says that the worker lives and reaches the database: its leases go on.

    Returns how its studies stand; None where the database does not know the worker (any more).
    """
    rows = db.execute(sql.RENEW, worker=worker_id, studies=list(study_ids))
    if not rows[0].known:
        return None
    found = {row.study_id: Standing(state=StudyState(row.state), highest=row.highest) for row in rows if row.study_id}
    return {study_id: found.get(study_id, Standing(state=None)) for study_id in study_ids}


def _fence(held: Held) -> dict[str, Any]:
    return {"study": held.study_id, "trial": held.trial_id, "attempt": held.attempt}


def _progress(progress: Progress) -> dict[str, Any]:
    return {
        "epochs": list(progress.curve),
        "values": list(progress.curve.values()),
        "checkpoint": progress.checkpoint,
        "attributes": dict(progress.attributes),
    }


def _accepted(rows: Sequence[Row]) -> bool:
    return bool(rows)
