"""Workers: who trains, where, and whether they were heard of lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from tuner.settings import DEFAULT_LEASE_SECONDS
from tuner.storage.connection import Database
from tuner.storage.trial_statements import PULSE


class WorkerState(StrEnum):
    ALIVE = "alive"
    LOST = "lost"  # not heard of for the length of a lease
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class GpuUsage:
    """A GPU as all that use it make of it; None: unknown."""

    percent: float | None  # of the last second or so in which it computed
    memory_bytes: int | None
    total_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a worker with its children makes of its machine; None: unknown."""

    busy_cores: float | None  # since its last sign of life: 1.9
    cores: int  # that it may run on
    memory_bytes: int | None  # of all its processes
    available_bytes: int | None  # of memory, to all on that machine
    gpus: tuple[GpuUsage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    worker_id: UUID
    host: str
    pid: int
    device: str
    slots: int
    version: str  # of tuner
    state: WorkerState
    reason: str | None  # why it ended, where something was wrong
    serves: Sequence[str] | None  # studies; None: all that run
    usage: Usage | None  # as it said last; None: not yet
    trials: int  # that it holds now
    busy: int  # slots that train them
    training: Mapping[str, Sequence[int]]  # these: name of a study -> numbers
    started_at: datetime
    last_seen: datetime
    silent_seconds: float  # since then, by the database's clock
    lease_seconds: float  # so long silent it is lost
    ended_at: datetime | None


_LIST = """
SELECT worker.*, worker.last_seen < clock_timestamp() - worker.lease AS silent, held.*,
    extract(epoch FROM clock_timestamp() - worker.last_seen)::float8 AS silent_seconds,
    CASE WHEN worker.studies IS NOT NULL THEN (
        SELECT coalesce(array_agg(study_name ORDER BY study_id), '{}') FROM public.studies
        WHERE study_id = ANY (worker.studies)
    ) END AS serves
FROM tuner.worker CROSS JOIN LATERAL (
    SELECT coalesce(sum(cardinality(numbers)), 0)::int AS trials, coalesce(sum(stacks), 0)::int AS busy,
        jsonb_object_agg(study_name, numbers) AS training
    FROM (
        SELECT studies.study_name, array_agg(lease.number ORDER BY lease.number) AS numbers,
            count(DISTINCT lease.stack) AS stacks
        FROM tuner.lease JOIN public.studies USING (study_id)
        WHERE lease.worker_id = worker.worker_id AND lease.lease_until > clock_timestamp()
        GROUP BY studies.study_name
    ) AS by_study WHERE study_name IS NOT NULL
) AS held
WHERE %(all)s OR (worker.ended_at IS NULL AND (
    worker.last_seen > clock_timestamp() - worker.lease
    OR EXISTS (SELECT FROM tuner.lease WHERE lease.worker_id = worker.worker_id AND lease.lease_until IS NOT NULL)
))
ORDER BY worker.started_at, worker.worker_id"""

_REGISTER = f"""
INSERT INTO tuner.worker (worker_id, host, pid, device, slots, version, lease, studies)
VALUES (%(worker)s, %(host)s, %(pid)s, %(device)s, %(slots)s, %(version)s,
    make_interval(secs => %(lease)s), %(studies)s::int[])
ON CONFLICT (worker_id) DO UPDATE SET last_seen = clock_timestamp(), ended_at = NULL;
{PULSE}"""


def register(
    db: Database,
    worker_id: UUID,
    *,
    host: str,
    pid: int,
    device: str,
    slots: int,
    version: str,
    lease_seconds: float = DEFAULT_LEASE_SECONDS,
    studies: Sequence[int] | None = None,  # ids of those that it serves; None: all that run
) -> None:
    """Makes a worker known; may be repeated."""
    db.execute(
        _REGISTER,
        worker=worker_id,
        host=host,
        pid=pid,
        device=device,
        slots=slots,
        version=version,
        lease=lease_seconds,
        studies=None if studies is None else list(studies),
    )


def set_device(db: Database, worker_id: UUID, device: str) -> None:
    """Says on what a worker trains, once its children have found out."""
    db.execute(
        "UPDATE tuner.worker SET device = %(device)s WHERE worker_id = %(worker)s", worker=worker_id, device=device
    )


def set_usage(db: Database, worker_id: UUID, usage: Usage) -> None:
    """Says what a worker makes of its machine."""
    db.execute(
        "UPDATE tuner.worker SET usage = %(usage)s WHERE worker_id = %(worker)s", worker=worker_id, usage=asdict(usage)
    )


def unregister(db: Database, worker_id: UUID, reason: str | None = None) -> None:
    """Says that the worker ended; it has given its trials back before."""
    db.execute(
        "UPDATE tuner.worker SET last_seen = clock_timestamp(), ended_at = clock_timestamp(), reason = %(reason)s "
        "WHERE worker_id = %(worker)s",
        worker=worker_id,
        reason=reason,
    )


def list_workers(db: Database, *, ended: bool = False) -> list[WorkerRecord]:
    """Workers in the order in which they started; those that ended, or were lost and have lost their trials to others,
    only if asked for.
    """
    return [
        WorkerRecord(
            worker_id=row.worker_id,
            host=row.host,
            pid=row.pid,
            device=row.device,
            slots=row.slots,
            version=row.version,
            state=WorkerState.ENDED if row.ended_at else WorkerState.LOST if row.silent else WorkerState.ALIVE,
            reason=row.reason,
            serves=row.serves,
            usage=_usage(row.usage),
            trials=row.trials,
            busy=row.busy,
            training=row.training or {},
            started_at=row.started_at,
            last_seen=row.last_seen,
            silent_seconds=row.silent_seconds,
            lease_seconds=row.lease.total_seconds(),
            ended_at=row.ended_at,
        )
        for row in db.execute(_LIST, all=ended)
    ]


def _usage(stored: Mapping[str, Any] | None) -> Usage | None:
    if stored is None:
        return None
    return Usage(**{**stored, "gpus": tuple(GpuUsage(**gpu) for gpu in stored["gpus"])})
