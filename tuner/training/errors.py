"""What can be wrong with a model before it has seen any data."""

from __future__ import annotations

import torch

from tuner.errors import TunerError


class InfeasibleModel(TunerError):
    """No such model can be built or trained; the message says why in one line."""


def is_out_of_memory(error: Exception) -> bool:
    """torch's allocator for the CPU raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
