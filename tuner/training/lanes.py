"""Several networks at once in one thread: lanes that take turns, a step at a time.

On a GPU each lane has a stream of its own, so that while the device works for one, the others give it more to do. One
thread means that no lane is amidst its work while another's step is captured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
        config = self._waiting[number][0].config
        take = partial(self._take, number, _common(config))
        lane = Lane(self._data_folder(config), self._device, take, self._progress)
        self._going[number] = _Going(turns=lane.turns(take()), deterministic=config.training.deterministic)

    def _take(self, number: int, common: object) -> list[Run]:
        """What waits for a lane and can follow there; trials of another study may wait behind its end."""
        waiting = self._waiting.pop(number, [])
        others = [run for run in waiting if _common(run.config) != common]
        if others:
            self._waiting[number] = others
        return [run for run in waiting if run not in others]

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


def _common(config: TrialConfig) -> object:
    """Of all that a lane trains one after the other."""
    return config.data, config.training.deterministic
