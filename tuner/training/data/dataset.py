"""What a prepared data set is: its description, its parts, and what must hold of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.spec.config import Kind, Task

PartName = Literal["train", "validation", "test"]
Baselines = Mapping[PartName, Mapping[str, float]]
PARTS: tuple[PartName, ...] = ("train", "validation", "test")
MAX_BYTES = 8 * 2**30  # of all prepared arrays together: more is a slip in the configuration, not a data set
CHUNK = 4096  # examples widened to float64 at a time


@dataclass(frozen=True, kw_only=True)
class Part:
    inputs: NDArray[Any]  # (n, *input_shape), in a compact type: uint8 or float32
    targets: NDArray[Any]  # int64 (n,) classes, or float32 (n, horizon)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a builder makes, to be checked and stored."""

    task: Task
    kind: Kind
    parts: Mapping[PartName, Part]
    outputs: int  # classes, or steps of the horizon
    mean: float  # of the training inputs
    std: float
    target_feature: int | None = None
    baselines: Baselines = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Everything that is known of prepared data without opening an array."""

    task: Task
    kind: Kind
    input_shape: tuple[int, ...]  # one example: (C, H, W) image, (steps, features) sequence, (features,) vector
    outputs: int  # classes, or steps of the horizon
    mean: float  # of the training inputs: the model sees (x - mean) / std
    std: float
    sizes: dict[str, int]  # examples in train, validation and test
    target_feature: int | None  # forecasts: index of the target column among the inputs, None where it is not an input
    baselines: Baselines  # scores of methods without training, by part: {"validation": {"repeat last (mse)": 0.0696}}
    digest: str  # sha256 of the prepared arrays


def moments(inputs: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation over all values, in float64 without a float64 copy of the whole."""
    chunks = [inputs[start : start + CHUNK] for start in range(0, len(inputs), CHUNK)]
    mean = sum(float(chunk.sum(dtype=np.float64)) for chunk in chunks) / inputs.size
    squares = sum(float(np.square(chunk.astype(np.float64) - mean).sum()) for chunk in chunks)
    return mean, float(np.sqrt(squares / inputs.size))


def check(dataset: Dataset) -> None:
    """Raises DataError for what no training could use; a builder's arrays may still be views without memory."""
    size = sum(part.inputs.nbytes + part.targets.nbytes for part in dataset.parts.values())
    if size > MAX_BYTES:
        raise DataError(
            f"prepared, the data would take {size / 2**30:.0f} GiB; the limit is {MAX_BYTES / 2**30:.0f} GiB"
        )
    shape = dataset.parts["train"].inputs.shape[1:]
    for name in PARTS:
        _check_part(name, dataset.parts[name], shape, dataset)
    if not (np.isfinite(dataset.mean) and np.isfinite(dataset.std) and dataset.std > 0):
        raise DataError("all training inputs are the same value: there is nothing to learn from")


def _check_part(name: PartName, part: Part, shape: tuple[int, ...], dataset: Dataset) -> None:
    count = len(part.inputs)
    if count == 0:
        raise DataError(f"the {name} part is empty")
    if len(part.targets) != count:
        raise DataError(f"the {name} part has {count} inputs but {len(part.targets)} targets")
    if part.inputs.shape[1:] != shape:
        raise DataError(f"examples of the {name} part have shape {part.inputs.shape[1:]}, those of train {shape}")
    if not np.isfinite(part.inputs).all() or not np.isfinite(part.targets).all():
        raise DataError(f"the {name} part has values that are not finite")
    if dataset.task == "classification":
        low, high = int(part.targets.min()), int(part.targets.max())
        if low < 0 or high >= dataset.outputs:
            raise DataError(f"the {name} part has labels from {low} to {high}, not from 0 to {dataset.outputs - 1}")
    elif part.targets.shape[1:] != (dataset.outputs,):
        raise DataError(f"the {name} part has targets of shape {part.targets.shape[1:]}, not ({dataset.outputs},)")
