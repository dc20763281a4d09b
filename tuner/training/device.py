"""Which device a slot trains on, and what is to be set around what it does there."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from tuner.errors import InvalidInput


def choose_device(name: str, slot: int = 0) -> torch.device:
    """For `auto`, `cpu` or `cuda`: the CPU, or the GPU that is this slot's turn.

    Raises InvalidInput for `cuda` where there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InvalidInput("--device cuda: there is no CUDA device here; use cpu or auto")
    return torch.device("cuda", slot % torch.cuda.device_count())


def own_stream(device: torch.device, lane: int = 0) -> AbstractContextManager[object]:
    """Around what a lane does on a GPU: in its own stream, not the default one, which cannot be captured."""
    return torch.cuda.stream(_stream(device, lane)) if device.type == "cuda" else nullcontext()


@cache
def _stream(device: torch.device, lane: int) -> torch.cuda.Stream:
    """A lane keeps its stream: freed memory is used again in the stream in which it was used."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def set_repeatable(on: bool) -> None:
    """Whether operations on a GPU are to repeat to the bit; torch keeps this switch for the whole process."""
    if torch.are_deterministic_algorithms_enabled() != on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at a process's first matrix product
        torch.use_deterministic_algorithms(on)
