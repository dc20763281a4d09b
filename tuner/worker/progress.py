"""Signs of life of a child in shared memory: its phase, and a counter that moves at every step."""

from __future__ import annotations

import ctypes
from collections.abc import MutableSequence
from multiprocessing.context import ForkServerContext
from typing import cast

from tuner.training.progress import Phase


class SharedProgress:
    """Written by one child, read by its supervisor; the `Progress` that training is given."""

    def __init__(self, context: ForkServerContext) -> None:
        self._cells = cast("MutableSequence[int]", context.RawArray(ctypes.c_uint64, 2))
        self._cells[1] = Phase.START

    def enter(self, phase: Phase) -> None:
        self._cells[1] = phase
        self.tick()

    def tick(self) -> None:
        self._cells[0] += 1

    @property
    def phase(self) -> Phase:
        return Phase(self._cells[1])

    def read(self) -> tuple[int, int]:
        """Moves whenever the child does."""
        return self._cells[0], self._cells[1]
