"""What happens to a supervisor, besides what its children say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.spec.stacking import Group
from tuner.states import StudyState
from tuner.storage.claims import Claim, Held
from tuner.worker.messages import Message


@dataclass(frozen=True, kw_only=True)
class ChildSays:
    trainer: int
    message: Message


@dataclass(frozen=True, kw_only=True)
class ChildLost:
    trainer: int
    reason: str  # "was killed by SIGKILL"


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """A trial to train."""

    claim: Claim
    config: str  # a TrialConfig as JSON


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """The slot has trials to train, all of one study and one shape; at least one."""

    slot: int
    study_folder: str  # of its files
    seed: int
    trials: Sequence[Assigned]


@dataclass(frozen=True, kw_only=True)
class NothingToClaim:
    slot: int
    ended: bool  # nothing will ever come: every study served has ended


@dataclass(frozen=True, kw_only=True)
class NothingToJoin:
    """No trial to train beside those of the slot."""

    slot: int


@dataclass(frozen=True, kw_only=True)
class EngineUnknown:
    """Before trials of the study can be claimed, a child has to measure how they are trained best."""

    slot: int  # that asked
    study_id: int
    groups: Sequence[Group]  # of its trials


@dataclass(frozen=True, kw_only=True)
class Pruned:
    held: Held
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A write came from an attempt that holds its trial no longer."""

    held: Held


@dataclass(frozen=True, kw_only=True)
class Renewed:
    states: Mapping[int, StudyState | None]  # None: the study was deleted


@dataclass(frozen=True, kw_only=True)
class StorageFailed:
    error: Exception


@dataclass(frozen=True, kw_only=True)
class Tick:
    pass


@dataclass(frozen=True, kw_only=True)
class Terminate:
    """A signal to end; a second one means at once."""


StorageAnswer = Claimed | NothingToClaim | NothingToJoin | EngineUnknown | Pruned | Refused | Renewed | StorageFailed
Event = ChildSays | ChildLost | StorageAnswer | Tick | Terminate
