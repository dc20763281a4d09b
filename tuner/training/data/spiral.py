"""The two arms of TensorFlow Playground's spiral (its dataset.ts, classifySpiralData)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuner.seeds import derive_seed
from tuner.settings import Settings
from tuner.spec.config import SpiralData
from tuner.training.data.dataset import Dataset, moments
from tuner.training.data.split import deal


def build(config: SpiralData, _settings: Settings) -> Dataset:
    """Points float32 (n, 2) within a radius of 5 and some noise; class 1 is the Playground's positive arm."""
    random = np.random.RandomState(
        derive_seed("spiral", config.split.seed)
    )  # a stream that no version of numpy changes
    half = config.points // 2
    arms = [
        _arm(config.points - half, 0.0, config.noise, random),
        _arm(half, np.pi, config.noise, random),
    ]
    labels = np.repeat(np.array([1, 0], np.int64), [len(arm) for arm in arms])
    split = config.split
    parts = deal(np.concatenate(arms), labels, {"validation": split.validation, "test": split.test}, split.seed)
    mean, std = moments(parts["train"].inputs)
    return Dataset(task=config.task, kind=config.kind, parts=parts, outputs=2, mean=mean, std=std)


def _arm(points: int, turn: float, noise: float, random: np.random.RandomState) -> NDArray[np.float32]:
    way = np.arange(points) / points
    radius, angle = 5 * way, 1.75 * way * 2 * np.pi + turn
    line = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return (line + noise * random.uniform(-1, 1, size=line.shape)).astype(np.float32)
