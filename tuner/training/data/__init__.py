"""Data sets, prepared once into checksummed arrays that all processes map into memory.

To add one: its configuration in `tuner.spec.config`, a file here with `build`, a line in BUILDERS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner.settings import Settings
from tuner.spec.config import DataConfig
from tuner.training.data import cache, digits, etth1, fashion_mnist, spiral
from tuner.training.data.cache import info, location, part
from tuner.training.data.dataset import DataInfo, Dataset, Part, PartName

__all__ = ["BUILDERS", "DataInfo", "Part", "PartName", "info", "location", "part", "prepare"]

BUILDERS: dict[str, Callable[[Any, Settings], Dataset]] = {
    "digits": digits.build,
    "fashion_mnist": fashion_mnist.build,
    "etth1": etth1.build,
    "spiral": spiral.build,
}


def prepare(config: DataConfig, settings: Settings) -> Path:
    """The folder of a configuration's prepared data, made or repaired first where that is needed.

    Reads no more than checksums where the data is ready. Safe to call from many processes at once. Raises DataError:
    a file is missing and the network does not help, a source file is damaged, the disk is full, a split is impossible.
    """
    folder = location(config, settings)
    cache.prepare(folder, lambda: BUILDERS[config.name](config, settings))
    return folder
