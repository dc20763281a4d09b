"""What a supervisor asks of its storage thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.spec.stacking import Engine
from tuner.states import Outcome
from tuner.storage.claims import Held


@dataclass(frozen=True, kw_only=True)
class ClaimNext:
    slot: int
    most: int = 1  # trials
    beside: Sequence[Held] = ()  # what the slot trains: to these, others of their shape are added


@dataclass(frozen=True, kw_only=True)
class Report:
    held: Held
    curve: Mapping[int, float]
    checkpoint: str | None  # below the artifacts' place


@dataclass(frozen=True, kw_only=True)
class Tell:
    held: Held
    outcome: Outcome
    reason: str | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GiveBack:
    held: Held
    death: Outcome | None  # crashed or timed out; None: nothing went wrong with it
    reason: str | None
    largest_stack: int | None = None  # trials that it may be trained with from now on, itself included


@dataclass(frozen=True, kw_only=True)
class Settle:
    study_id: int
    engine: Engine | None  # as it was measured; None: the child that measured died


@dataclass(frozen=True, kw_only=True)
class Equip:
    device: str  # on which the worker's slots train, as its children found it


@dataclass(frozen=True, kw_only=True)
class Close:
    reason: str | None  # why the worker ends, where something is wrong


Request = ClaimNext | Report | Tell | GiveBack | Settle | Equip | Close
