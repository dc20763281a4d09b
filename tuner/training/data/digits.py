"""scikit-learn's bundled handwritten digits (UCI, test part of the original): always at hand."""

from __future__ import annotations

import numpy as np

from tuner.settings import Settings
from tuner.spec.config import DigitsData
from tuner.training.data.dataset import Dataset, moments
from tuner.training.data.split import deal


def build(config: DigitsData, _settings: Settings) -> Dataset:
    """Images uint8 (n, 1, 8, 8) of values 0 to 16."""
    from sklearn.datasets import load_digits  # a second of imports

    bundled = load_digits()
    images = bundled.images.astype(np.uint8)[:, np.newaxis]
    labels = bundled.target.astype(np.int64)
    split = config.split
    parts = deal(images, labels, {"validation": split.validation, "test": split.test}, split.seed)
    mean, std = moments(parts["train"].inputs)
    return Dataset(task=config.task, kind=config.kind, parts=parts, outputs=10, mean=mean, std=std)
