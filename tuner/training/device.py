"""Which device a slot trains on."""

from __future__ import annotations

import torch

from tuner.errors import TunerError


def choose_device(name: str, slot: int = 0) -> torch.device:
    """For `auto`, `cpu` or `cuda`: the CPU, or the GPU that is this slot's turn.

    Raises TunerError for `cuda` where there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TunerError("there is no CUDA device here; use --device cpu or auto")
    return torch.device("cuda", slot % torch.cuda.device_count())
