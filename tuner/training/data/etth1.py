"""ETTh1 (Zhou et al. 2021, Informer, arXiv:2012.07436): hourly loads and oil temperature of a transformer station."""

from __future__ import annotations

import io

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tuner.settings import Settings
from tuner.spec.config import Etth1Data
from tuner.training.data.dataset import Dataset, Part, PartName
from tuner.training.data.sources import SourceFile, read_sources

FILE = SourceFile(
    folder="etth1",
    name="ETTh1.csv",
    sha256="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    mirrors=(
        "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/ETTh1.csv",
        "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
    ),
)
MONTH = 30 * 24  # hours, as the Informer paper counts them
HOURS: dict[PartName, tuple[int, int]] = {
    "train": (0, 12 * MONTH),
    "validation": (12 * MONTH, 16 * MONTH),
    "test": (16 * MONTH, 20 * MONTH),
}


def build(config: Etth1Data, settings: Settings) -> Dataset:
    """Windows float32 (n, window, features) and what follows of the target column, float32 (n, horizon).

    Standardised by the training part. As in the Informer code, the forecast hours of a part lie within it, while the
    windows of validation and test reach back into the part before.
    """
    [content] = read_sources([FILE], settings)
    columns = _standardised(content)
    features = np.stack([columns[name] for name in config.inputs], axis=1)
    target = columns[config.target]
    hours = {name: slice(max(0, start - config.window), end) for name, (start, end) in HOURS.items()}
    parts = {name: _windows(features[span], target[span], config) for name, span in hours.items()}
    return Dataset(
        task=config.task,
        kind=config.kind,
        parts=parts,
        outputs=config.horizon,
        mean=0.0,
        std=1.0,
        target_feature=config.inputs.index(config.target) if config.target in config.inputs else None,
        baselines={
            "validation": _repeat_last(target, config, "validation"),
            "test": _repeat_last(target, config, "test"),
        },
    )


def _standardised(content: bytes) -> dict[str, NDArray[np.float32]]:
    header, _, _ = content.partition(b"\n")
    names = header.decode().strip().split(",")[1:]  # the first column is the date
    values = np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1, usecols=range(1, len(names) + 1))
    train = values[slice(*HOURS["train"])]
    values = ((values - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32)
    return dict(zip(names, values.T, strict=True))


def _windows(features: NDArray[np.float32], target: NDArray[np.float32], config: Etth1Data) -> Part:
    """Views: nothing is copied before the arrays are written."""
    inputs = sliding_window_view(features[: -config.horizon], config.window, axis=0)  # (n, features, window)
    targets = sliding_window_view(target[config.window :], config.horizon)
    return Part(inputs=inputs.transpose(0, 2, 1), targets=targets)


def _repeat_last(target: NDArray[np.float32], config: Etth1Data, part: PartName) -> dict[str, float]:
    """Scores of forecasting the last value seen, for every hour of the horizon."""
    start, end = HOURS[part]
    truth = sliding_window_view(target[start:end], config.horizon).astype(np.float64)
    last = target[start - 1 : end - config.horizon, np.newaxis]
    return {
        "repeat last (mse)": float(np.square(truth - last).mean()),
        "repeat last (mae)": float(np.abs(truth - last).mean()),
    }
