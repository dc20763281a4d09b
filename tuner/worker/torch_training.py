"""What the children of a worker do with a trial: they train it, with torch. Imported once, by the fork server."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from tuner.settings import read_settings
from tuner.spec.config import DataConfig, TrialConfig
from tuner.training.data import prepare
from tuner.training.device import choose_device
from tuner.training.loop import Member, train
from tuner.training.progress import Epoch, Phase, Progress, Result, Stop
from tuner.training.warmup import warm_up
from tuner.worker.messages import Train

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

    def __call__(
        self,
        trial: Train,
        *,
        stop: Callable[[], Stop],
        report: Callable[[Epoch, Path | None], None],
        progress: Progress,
    ) -> Result:
        config = TrialConfig.model_validate_json(trial.config)
        progress.enter(Phase.PREPARE)
        return train(
            Member(config=config, seed=trial.seed, number=trial.number),
            _prepared(config.data),
            device=self._device,
            folder=Path(trial.folder),
            resume=Path(trial.resume) if trial.resume else None,
            stop=stop,
            report=report,
            progress=progress,
        )


@cache
def _prepared(config: DataConfig) -> Path:
    """Once a child: its checksums take longer than many a trial."""
    return prepare(config, read_settings())
