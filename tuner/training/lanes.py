"""Several networks at once in one thread: lanes that take turns, a step at a time.

On a GPU each lane has a stream of its own, so that while the device works for one, the others give it more to do. One
thread means that no lane is amidst its work while another's step is captured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.spec.config import TrialConfig
from tuner.training.device import own_stream, set_repeatable
from tuner.training.loop import Joining, Lane
from tuner.training.progress import Progress, Run
from tuner.training.turns import Turn, Turns

PAUSE_SECONDS = 50e-6  # where all lanes wait for the device: shorter than a step that would be worth waiting for


def train(
    runs: Sequence[Run],
    data_folder: Callable[[TrialConfig], Path],
    *,
    device: torch.device,
    joining: Joining,
    progress: Progress,
) -> None:
    """As `loop.train`, each lane of the runs by itself; lanes may be of different studies.

    What a trial comes to does not depend on other lanes, but for memory: one that runs out of it ends its own trials.
    Whatever else is raised concerns all that have not ended.
    """
    Lanes(data_folder, device, joining, progress).train(runs)


@dataclass(frozen=True, kw_only=True)
class _Going:
    turns: Turns[None]
    deterministic: bool


class Lanes:
    def __init__(
        self, data_folder: Callable[[TrialConfig], Path], device: torch.device, joining: Joining, progress: Progress
    ) -> None:
        self._data_folder = data_folder
        self._device = device
        self._joining = joining
        self._progress = progress
        self._waiting: dict[int, list[Run]] = {}  # lane -> runs that it has not seen
        self._going: dict[int, _Going] = {}

    def train(self, runs: Sequence[Run]) -> None:
        self._arrive(runs)
        while self._waiting or self._going:
            for lane in [lane for lane in self._waiting if lane not in self._going]:
                self._begin(lane)
            turns = [self._turn(lane) for lane in [*self._going]]
            if all(turn is Turn.WAITED for turn in turns):
                time.sleep(PAUSE_SECONDS)
            self._arrive(self._joining())

    def _arrive(self, runs: Sequence[Run]) -> None:
        for run in runs:
            self._waiting.setdefault(run.lane, []).append(run)

    def _begin(self, number: int) -> None:
        runs = self._waiting.pop(number)
        config = runs[0].config
        lane = Lane(self._data_folder(config), self._device, lambda: self._waiting.pop(number, []), self._progress)
        self._going[number] = _Going(turns=lane.turns(runs), deterministic=config.training.deterministic)

    def _turn(self, number: int) -> Turn | None:
        """None where the lane has come to its end."""
        going = self._going[number]
        if self._device.type == "cuda":
            set_repeatable(going.deterministic)
        with own_stream(self._device, number):
            turn = next(going.turns, None)
        if turn is None:
            del self._going[number]
        return turn
