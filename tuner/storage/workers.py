"""Workers: who trains, where, and whether they were heard of lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from tuner.storage.claims import LEASE_SECONDS
from tuner.storage.connection import Database


class WorkerState(StrEnum):
    ALIVE = "alive"
    LOST = "lost"  # not heard of for the length of a lease
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    worker_id: UUID
    host: str
    pid: int
    device: str
    slots: int
    version: str  # of tuner
    state: WorkerState
    trials: int  # that it holds now
    studies: tuple[str, ...]  # to which these belong
    started_at: datetime
    last_seen: datetime
    ended_at: datetime | None


_LIST = """
SELECT worker.*, worker.last_seen < clock_timestamp() - make_interval(secs => %(lease)s) AS silent, held.*
FROM tuner.worker CROSS JOIN LATERAL (
    SELECT count(*) AS trials, array_agg(DISTINCT studies.study_name) AS studies
    FROM tuner.lease JOIN public.studies USING (study_id)
    WHERE lease.worker_id = worker.worker_id AND lease.lease_until > clock_timestamp()
) AS held
WHERE %(all)s OR worker.ended_at IS NULL
ORDER BY worker.started_at, worker.worker_id"""

_REGISTER = """
INSERT INTO tuner.worker (worker_id, host, pid, device, slots, version)
VALUES (%(worker)s, %(host)s, %(pid)s, %(device)s, %(slots)s, %(version)s)
ON CONFLICT (worker_id) DO UPDATE SET last_seen = clock_timestamp(), ended_at = NULL"""


def register(db: Database, worker_id: UUID, *, host: str, pid: int, device: str, slots: int, version: str) -> None:
    """Makes a worker known; may be repeated."""
    db.execute(_REGISTER, worker=worker_id, host=host, pid=pid, device=device, slots=slots, version=version)


def unregister(db: Database, worker_id: UUID) -> None:
    """Says that the worker ended; it has given its trials back before."""
    db.execute(
        "UPDATE tuner.worker SET last_seen = clock_timestamp(), ended_at = clock_timestamp() "
        "WHERE worker_id = %(worker)s",
        worker=worker_id,
    )


def list_workers(db: Database, *, ended: bool = False) -> list[WorkerRecord]:
    """Workers in the order in which they started, those that ended only if asked for."""
    return [
        WorkerRecord(
            worker_id=row.worker_id,
            host=row.host,
            pid=row.pid,
            device=row.device,
            slots=row.slots,
            version=row.version,
            state=WorkerState.ENDED if row.ended_at else WorkerState.LOST if row.silent else WorkerState.ALIVE,
            trials=row.trials,
            studies=tuple(row.studies or ()),
            started_at=row.started_at,
            last_seen=row.last_seen,
            ended_at=row.ended_at,
        )
        for row in db.execute(_LIST, lease=LEASE_SECONDS, all=ended)
    ]
