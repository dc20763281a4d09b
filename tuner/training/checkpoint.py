"""Checkpoints: what a trial needs to go on, in a file that is either whole or refused.

A file is MAGIC, the sha256 of the rest, and what `torch.save` makes of the record; torch itself does not notice
a flipped bit. It is read with `weights_only=True`, so that a file from elsewhere cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.errors import ArtifactError
from tuner.spec.config import TrialConfig

MAGIC = b"tuner checkpoint 1\n"
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch whose value and weights stand for the trial."""

    epoch: int
    value: float
    model: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trial at an epoch's end."""

    digest: str  # of what is trained, see `digest`
    epoch: int  # epochs trained
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    best: Best
    curve: tuple[dict[str, float], ...]  # metrics of each epoch from the first
    seconds: float  # trained so far, in all attempts


def digest(config: TrialConfig, seed: int, number: int, data: str) -> str:
    """Names what is trained: checkpoints go on only where it is the same. `data` is the digest of the data set."""
    document = {"config": config.model_dump(mode="json"), "seed": seed, "number": number, "data": data}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint that appears whole or not at all; another one of that name stays until then.

    Raises ArtifactError, with the path, where the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({**vars(checkpoint), "best": vars(checkpoint.best)}, buffer)
    payload = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, MAGIC, hashlib.sha256(payload).digest(), payload)
    except OSError as error:
        raise ArtifactError(f"cannot write the checkpoint {path}: {error.strerror}") from error


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint, to the CPU.

    Raises ArtifactError for a file that is missing, damaged or no checkpoint.
    """
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if content[: len(MAGIC)] != MAGIC:
        raise ArtifactError(f"{path} is no checkpoint of this version of tuner")
    start = len(MAGIC) + DIGEST_BYTES
    if hashlib.sha256(content[start:]).digest() != content[len(MAGIC) : start]:
        raise ArtifactError(f"the checkpoint {path} is damaged: its checksum does not match")
    try:
        record = torch.load(io.BytesIO(content[start:]), map_location="cpu", weights_only=True)
        return Checkpoint(**{**record, "best": Best(**record["best"])})
    except (pickle.UnpicklingError, RuntimeError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path} is no checkpoint of this version of tuner") from error


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Writes beside `path` and renames once the bytes are on the disk. Raises OSError, leaving nothing behind."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
