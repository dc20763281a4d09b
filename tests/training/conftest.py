"""Tiny data sets that can be learnt, one of each kind, prepared by the real cache; and trainings on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tuner.spec.config import TrialConfig
from tuner.training.data import cache
from tuner.training.data.dataset import Dataset, Part
from tuner.training.loop import train
from tuner.training.progress import Epoch, NoProgress, Progress, Result, Stop

CPU = torch.device("cpu")
SIZES = {"train": 100, "validation": 37, "test": 30}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker; the number of threads is part of a CNN's result."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prepared(folder: Path, **dataset: Any) -> Path:
    cache.prepare(folder, lambda: Dataset(**dataset))
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 1 x 8 x 8: a bright column in one of three places, under noise."""
    random = np.random.default_rng(0)

    def part(count: int) -> Part:
        targets = random.integers(0, 3, count)
        pixels = random.integers(0, 120, (count, 1, 8, 8), dtype=np.uint8)
        pixels[np.arange(count), 0, :, 1 + 2 * targets] += 100
        return Part(inputs=pixels, targets=targets)

    parts = {name: part(count) for name, count in SIZES.items()}
    return prepared(
        tmp_path_factory.mktemp("cache") / "images",
        task="classification",
        kind="image",
        parts=parts,
        outputs=3,
        mean=70.0,
        std=40.0,
    )


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forecasts of 3 steps from 12 steps of two features, of which the second is the target: sines with a drift."""
    random = np.random.default_rng(1)

    def part(count: int) -> Part:
        start = random.uniform(0, 6, (count, 1))
        time = start + 0.3 * np.arange(15)
        values = (np.sin(time) + start).astype(np.float32)
        inputs = np.stack([np.cos(time).astype(np.float32), values], axis=2)[:, :12]
        return Part(inputs=inputs, targets=values[:, 12:])

    parts = {name: part(count) for name, count in SIZES.items()}
    return prepared(
        tmp_path_factory.mktemp("cache") / "windows",
        task="forecast",
        kind="sequence",
        parts=parts,
        outputs=3,
        mean=1.5,
        std=2.0,
        target_feature=1,
    )


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of the plane: inside and outside of a circle."""
    random = np.random.default_rng(2)

    def part(count: int) -> Part:
        inputs = random.normal(size=(count, 2)).astype(np.float32)
        return Part(inputs=inputs, targets=(np.square(inputs).sum(1) > 1.4).astype(np.int64))

    parts = {name: part(count) for name, count in SIZES.items()}
    return prepared(
        tmp_path_factory.mktemp("cache") / "points",
        task="classification",
        kind="vector",
        parts=parts,
        outputs=2,
        mean=0.0,
        std=1.0,
    )


@pytest.fixture(scope="session")
def trial_config() -> Callable[..., TrialConfig]:
    """A trial's configuration from a model and what differs from the defaults of `training` and `objective`.

    Its data section only has to be valid: trainings read the folder that they are given.
    """

    def make(model: dict[str, Any], objective: dict[str, Any] | None = None, **training: Any) -> TrialConfig:
        metric = {"metric": "accuracy"}
        document = {
            "data": {"name": "digits"},
            "model": model,
            "training": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, **training},
            "objective": objective or metric,
        }
        return TrialConfig.model_validate(document)

    return make


@dataclass(kw_only=True)
class Run:
    """A training's run (see `tuner.training.progress.Run`), which keeps all that it is told."""

    config: TrialConfig
    folder: Path
    seed: int = 0
    number: int = 0
    resume: Path | None = None
    stop: Callable[[], Stop] = lambda: Stop.GO_ON
    epochs: list[Epoch] = field(default_factory=list)
    checkpoints: list[Path] = field(default_factory=list)  # those reported
    results: list[Result] = field(default_factory=list)

    def report(self, epoch: Epoch, checkpoint: Path | None) -> None:
        self.epochs.append(epoch)
        self.checkpoints.extend([checkpoint] if checkpoint else [])

    def end(self, result: Result) -> None:
        self.results.append(result)

    @property
    def result(self) -> Result:
        (result,) = self.results
        return result

    @property
    def curve(self) -> list[dict[str, float]]:
        return [dict(epoch.metrics) for epoch in self.epochs]


@dataclass
class Stopper:
    """Says `answer` from the given ask on (1: the first)."""

    answer: Stop = Stop.GO_ON
    at: int = 0
    asked: int = field(default=0, init=False)

    def __call__(self) -> Stop:
        self.asked += 1
        return self.answer if self.asked >= self.at else Stop.GO_ON


@pytest.fixture(scope="session")
def run() -> Callable[..., Run]:
    """Trains a trial to its end, or to where `stop` ends it."""

    def go(
        config: TrialConfig, data_folder: Path, folder: Path, *, progress: Progress | None = None, **settings: Any
    ) -> Run:
        trial = Run(config=config, folder=folder, **settings)
        train([trial], data_folder, device=CPU, joining=list, progress=progress or NoProgress())
        return trial

    return go


@pytest.fixture(scope="session")
def stopper() -> type[Stopper]:
    return Stopper


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, however nested."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.fixture(scope="session")
def equal_to_the_bit() -> Callable[[Any, Any], bool]:
    return same
