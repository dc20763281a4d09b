"""How long a worker goes on: until nothing is left, it has done its share, a signal comes, or something is broken."""

from __future__ import annotations

import logging
import sys
import time
from enum import Enum, auto

from tuner.worker.timing import DRAIN_SECONDS

log = logging.getLogger("tuner.worker")


class Ended(Enum):
    """Why a worker stopped."""

    NOTHING_LEFT = auto()
    ENOUGH = auto()  # it has begun as many trials, or served as long, as it was to
    TERMINATED = auto()


class Lifetime:
    """A worker that is to end drains first: it begins nothing more, and what runs is given back within a grace."""

    def __init__(self, count: int | None, time_limit: float | None) -> None:
        """`count`: trials to begin; `time_limit`: seconds. None: no limit."""
        self.at_once = False  # end without waiting for anything
        self.failure: Exception | None = None
        self._left_to_begin = count
        self._time_is_up = None if time_limit is None else time.monotonic() + time_limit
        self.why = "its worker was told to end"  # what runs is given back
        self._drain_until: float | None = None
        self._terminated = False

    @property
    def draining(self) -> bool:
        return self._drain_until is not None

    @property
    def done(self) -> bool:
        """Nothing more is to be begun."""
        return self.draining or self._left_to_begin == 0

    def most(self, asked: int) -> int:
        """How many more trials may be claimed while claims for so many are on their way."""
        self.tick(time.monotonic())
        if self.draining:
            return 0
        return sys.maxsize if self._left_to_begin is None else max(0, self._left_to_begin - asked)

    def began(self, trials: int) -> None:
        if self._left_to_begin is not None:
            self._left_to_begin -= trials

    def terminate(self) -> None:
        """A signal came; a second one means at once."""
        if self._terminated:
            log.warning("second signal: ending at once")
            self.at_once = True
        else:
            self._terminated = True
            self._drain()
            log.info("told to end: epochs that end within %.0f s are finished", DRAIN_SECONDS)

    def fail(self, error: Exception, *, at_once: bool = False) -> None:
        """It cannot go on."""
        self.failure = self.failure or error
        self.at_once = self.at_once or at_once
        self.why = "its worker could not go on"
        self._drain()

    def tick(self, now: float) -> None:
        """Looks at the clock (time.monotonic)."""
        if self._time_is_up is not None and now >= self._time_is_up and not self.draining:
            self.why = "its worker's time limit was reached"
            self._drain()
            log.info("the time limit is reached: epochs that end within %.0f s are finished", DRAIN_SECONDS)
        if self._drain_until is not None and now >= self._drain_until and not self.at_once:
            log.warning("what still runs goes back to its last checkpoint")
            self.at_once = True

    def grace(self) -> float:
        """Seconds that are left to end in order."""
        return 0.0 if self.at_once or self._drain_until is None else max(0.0, self._drain_until - time.monotonic())

    def ended(self, *, nothing_left: bool) -> Ended:
        """Raises what made it impossible to go on."""
        if self.failure is not None:
            raise self.failure
        if self._terminated:
            return Ended.TERMINATED
        return Ended.NOTHING_LEFT if nothing_left else Ended.ENOUGH

    def _drain(self) -> None:
        if self._drain_until is None:
            self._drain_until = time.monotonic() + DRAIN_SECONDS
