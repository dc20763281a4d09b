"""Removes useless checkpoints in a thread of its own: a slow network folder must not keep leases from being renewed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from tuner.worker.timing import SWEEP_SECONDS


class Sweeper(threading.Thread):
    def __init__(self, sweep: Callable[[str], None]) -> None:
        """`sweep` is called with each checkpoint that the database has come to point to."""
        super().__init__(name="sweeper", daemon=True)
        self._sweep = sweep
        self._stored: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def post(self, checkpoint: str) -> None:
        self._stored.put(checkpoint)

    def finish(self) -> None:
        """Waits for what is in the line, but not for a folder that does not answer."""
        self._stored.put(None)
        self.join(SWEEP_SECONDS)

    def run(self) -> None:
        while (checkpoint := self._stored.get()) is not None:
            self._sweep(checkpoint)
