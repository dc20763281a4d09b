"""What the children of a worker do with trials: they train them, with torch. Imported once, by the fork server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch

from tuner.settings import read_settings
from tuner.spec.config import DataConfig, TrialConfig
from tuner.spec.stacking import Engine, Group
from tuner.training import engine, lanes, loop
from tuner.training.data import prepare
from tuner.training.device import choose_device
from tuner.training.progress import Phase, Progress, Run
from tuner.training.warmup import warm_up

warm_up()  # here, so that every child is forked with it done: it takes 0.1 s to begin then instead of 2.7 s


class TorchTraining:
    def __init__(self, device: str, slot: int) -> None:
        """Raises WorkersFailed where there is no such device here."""
        torch.set_num_threads(1)
        self._device = choose_device(device, slot)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def mixes_studies(self) -> bool:
        return self._device.type == "cuda"  # where each slot is a lane, with data of its own

    def __call__(self, runs: Sequence[Run], joining: Callable[[], Sequence[Run]], progress: Progress) -> None:
        def data_folder(config: TrialConfig) -> Path:
            progress.enter(Phase.PREPARE)
            return _prepared(config.data)

        if self.mixes_studies:
            lanes.train(runs, data_folder, device=self._device, joining=joining, progress=progress)
        else:  # of one study, all of them
            loop.train(runs, data_folder(runs[0].config), device=self._device, joining=joining, progress=progress)

    def measure(self, groups: Sequence[Group], progress: Progress) -> Engine:
        progress.enter(Phase.PREPARE)
        return engine.measure(groups, _prepared(groups[0].config.data), self._device, progress).engine


@cache
def _prepared(config: DataConfig) -> Path:
    """Once a child: its checksums take longer than many a trial."""
    return prepare(config, read_settings())
