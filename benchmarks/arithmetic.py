"""How much arithmetic a trial is, and how much this machine can do: what remains of the time is overhead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from plain import MODELS
from torch.utils.flop_counter import FlopCounterMode

from tuner.training.data import DataInfo

EXAMPLES = 8  # that are counted; a batch of any size is so many times as much
SIDE = {"cpu": 2048, "cuda": 8192}  # of the square matrices whose product runs at the peak
REPEATS = 20


def trial_flops(knobs: Mapping[str, Any], info: DataInfo) -> float:
    """Multiplications and additions of a whole trial: its steps, and its evaluations.

    Counted as torch's operators see them, on a device without memory, where recurrent layers fall apart into matrix
    products. What is neither product nor convolution (norms, pooling, the optimizer) counts nothing.
    """
    with torch.device("meta"):
        model = MODELS[knobs["family"]](knobs, info.input_shape, info.outputs)
        inputs = torch.empty(EXAMPLES, *info.input_shape)
    with FlopCounterMode(display=False) as step:
        model(inputs).sum().backward()
    with torch.no_grad(), FlopCounterMode(display=False) as evaluation:
        model(inputs)
    epoch = step.get_total_flops() * info.sizes["train"] + evaluation.get_total_flops() * info.sizes["validation"]
    return float(knobs["epochs"] * epoch / EXAMPLES)


def peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the fastest of some large matrix products, by all cores."""
    side = SIDE[device]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)
