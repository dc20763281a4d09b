"""Checkpoints: what a trial needs to go on, as `torch.save` writes it.

They are read with `weights_only=True`, so that a file from elsewhere cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.errors import ArtifactError
from tuner.spec.config import TrialConfig
from tuner.training import checkpoint_file


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


# Knobs of `training` that came later, and what they say of checkpoints that know nothing of them.
_LATER = {"engine": ("auto", "single"), "precision": ("auto", "float32")}


def digest(config: TrialConfig, seed: int, number: int, data: str) -> str:
    """Names what is trained: checkpoints go on only where it is the same. `data` is the digest of the data set."""
    record = config.model_dump(mode="json")
    training = record["training"]
    record["training"] = {name: value for name, value in training.items() if value not in _LATER.get(name, ())}
    document = {"config": record, "seed": seed, "number": number, "data": data}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint that appears whole or not at all; another one of that name stays until then.

    Raises ArtifactError, with the path, where the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({**vars(checkpoint), "best": vars(checkpoint.best)}, buffer)
    checkpoint_file.write(path, buffer.getbuffer())


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint, to the CPU.

    Raises ArtifactError for a file that is missing, damaged or no checkpoint.
    """
    payload = checkpoint_file.read(path)
    try:
        record = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        return Checkpoint(**{**record, "best": Best(**record["best"])})
    except (pickle.UnpicklingError, RuntimeError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path} is no checkpoint of this version of tuner") from error
