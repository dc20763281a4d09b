"""What a supervisor and its children say to each other: frozen records, JSON on a socket.

Nothing is unpickled: a child runs users' code, and what comes from it is data. Every message about a trial names the
attempt, so that what an earlier one still says is told apart.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tuner.states import Outcome

_LENGTH = struct.Struct("!I")
_MAX_BYTES = 16 * 2**20


# --- supervisor to child --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Train:
    """One attempt at a trial."""

    trial_id: int
    attempt: int
    number: int
    lane: int  # it may train as one network with others of its lane only
    seed: int  # the study's search seed
    config: str  # a TrialConfig as JSON
    folder: str  # for the checkpoints of this attempt
    resume: str | None  # checkpoint to go on from
    log: str  # file for what the training prints


@dataclass(frozen=True, kw_only=True)
class Begin:
    """Train these together, and together with what trains already of their study."""

    study_id: int
    trials: Sequence[Train]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Find out by which engine trials of a study train fastest."""

    study_id: int
    configs: Sequence[str]  # TrialConfigs as JSON, each of a group
    trials: Sequence[int]  # of each group


@dataclass(frozen=True, kw_only=True)
class StopTrial:
    trial_id: int
    attempt: int
    after_epoch: bool  # finish the epoch and leave a checkpoint, or stop at the next step


# --- child to supervisor --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The child is up."""

    device: str  # "cpu", "cuda:1"


@dataclass(frozen=True, kw_only=True)
class EpochsDone:
    trial_id: int
    attempt: int
    curve: Mapping[int, float]  # epoch, from 1 -> value of the objective's metric
    checkpoint: str | None  # file name in the attempt's folder


@dataclass(frozen=True, kw_only=True)
class Finished:
    trial_id: int
    attempt: int
    outcome: Outcome | None  # None: stopped before its end
    reason: str | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Unable:
    """The machine, not the trial, is at fault (disk full, data set damaged, no GPU): the worker cannot go on."""

    trial_id: int | None  # None: before any trial
    attempt: int | None
    error: str  # the class in tuner.errors
    reason: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    study_id: int
    engine: Literal["single", "stacks"]
    members: int  # at most so many trials in a stack
    fault: str | None  # why it could not be measured: trained singly


Message = Begin | Measure | StopTrial | Ready | EpochsDone | Finished | Unable | Measured
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    body = json.dumps({"kind": type(message).__name__, **asdict(message)}, allow_nan=False).encode()
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """Raises ValueError where `body` is not a message of ours."""
    try:
        fields = json.loads(body)
        kind = _KINDS[fields.pop("kind")]
        if kind is Begin:
            fields["trials"] = [Train(**trial) for trial in fields["trials"]]
        if kind is EpochsDone:
            fields["curve"] = {int(epoch): value for epoch, value in fields["curve"].items()}
        if kind is Finished and fields["outcome"] is not None:
            fields["outcome"] = Outcome(fields["outcome"])
        return kind(**fields)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a message: {error}") from error


class Inbox:
    """Puts messages together from what a socket gives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def read(self) -> Iterator[Message]:
        """The messages that are complete after one receive. Raises EOFError at the end of file."""
        try:
            received = self._socket.recv(65_536)
        except ConnectionError:
            received = b""
        if not received:
            raise EOFError
        self._buffer += received
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > _MAX_BYTES:
                raise ValueError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield decode(body)
