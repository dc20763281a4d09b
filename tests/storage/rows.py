"""Studies made without a study file, for tests of what is written to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from tuner.spec.space import Point, Space
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Held, Nothing
from tuner.storage.connection import Database


def make_study(db: Database, *, name: str | None = None, epochs: int = 10, **budget: float) -> int:
    """A study that maximizes and knows no document; returns its id."""
    (row,) = db.execute(
        """
        WITH made AS (INSERT INTO public.studies (study_name) VALUES (%(name)s) RETURNING study_id),
        direction AS (INSERT INTO public.study_directions (direction, study_id, objective)
            SELECT 'MAXIMIZE', study_id, 0 FROM made)
        INSERT INTO tuner.study (study_id, document, budget, epochs, versions)
        SELECT study_id, '{}', %(budget)s, %(epochs)s, '{}' FROM made RETURNING study_id""",
        name=name or f"study-{uuid4().hex[:8]}",
        budget=budget,
        epochs=epochs,
    )
    return int(row.study_id)


def make_worker(db: Database, slots: int = 1) -> UUID:
    worker = uuid4()
    workers.register(db, worker, host="here", pid=1, device="cpu", slots=slots, version="0")
    return worker


def claim_one(db: Database, study_id: int, worker_id: UUID, request: UUID | None = None) -> Claim | Nothing:
    """The next trial of a study."""
    found, _ = claims.claim(db, study_id, worker_id, request or uuid4())
    return found if isinstance(found, Nothing) else found[0]


def claim_beside(
    db: Database,
    beside: Held,
    worker_id: UUID,
    numbers: Sequence[int],
    *,
    request: UUID | None = None,
    most: int = 99,
    largest_stack: int | None = None,
) -> Sequence[Claim]:
    """Trials of these numbers, to train together with one."""
    found, _ = claims.claim(
        db,
        beside.study_id,
        worker_id,
        request or uuid4(),
        most=most,
        numbers=numbers,
        beside=[beside],
        largest_stack=largest_stack,
    )
    return () if isinstance(found, Nothing) else found


def write_point(db: Database, held: Held, space: Space, point: Point, history: Mapping[str, Any] | None = None) -> bool:
    """Of one trial; whether it is still held."""
    return held in claims.write_points(db, space, {held: (point, history or {})})
