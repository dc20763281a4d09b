"""scikit-learn's bundled handwritten digits (UCI, test part of the original): always at hand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tuner.errors import DataError
from tuner.settings import Settings
from tuner.spec.config import DigitsData
from tuner.training.data.dataset import Dataset, moments
from tuner.training.data.split import deal


def build(config: DigitsData, _settings: Settings) -> Dataset:
    """Images uint8 (n, 1, 8, 8) of values 0 to 16."""
    rows = np.loadtxt(_bundled(), delimiter=",", dtype=np.int64)  # 64 pixels and the label
    images = rows[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = rows[:, -1]
    split = config.split
    parts = deal(images, labels, {"validation": split.validation, "test": split.test}, split.seed)
    mean, std = moments(parts["train"].inputs)
    return Dataset(task=config.task, kind=config.kind, parts=parts, outputs=10, mean=mean, std=std)


def _bundled() -> Path:
    """The file inside scikit-learn's package, whose import would take a second."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("scikit-learn, which brings the digits, is not installed: pip install scikit-learn")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
