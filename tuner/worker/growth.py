"""How many slots share a GPU: more, as long as it gets more done with them."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SLOTS = 2
MOST_SLOTS = 32  # torch has so many streams of a device to give
WORTHWHILE = 1.1  # times as many steps a second as with half as many slots
MEMORY_SHARE = 0.8  # of the GPU's: more than that is not planned to be in use, for the next trials may be larger
WINDOW_SECONDS = 10.0  # of all slots at work: so long steps are counted


class Growth:
    """Of one child's slots: they double while that is worthwhile, then stay as many as were best."""

    def __init__(self, most: int = MOST_SLOTS) -> None:
        self.slots = min(FIRST_SLOTS, most)
        self._most = most
        self._fewer: tuple[int, float] | None = None  # slots before these, and their steps a second
        self._window: tuple[float, int] | None = None  # when it began, and steps made until then
        self._settled = self.slots == most

    def look(self, now: float, steps: int, *, at_work: bool, memory_share: Callable[[], float | None]) -> int:
        """How many slots there are to be.

        `steps` were made by the child so far, `at_work` says whether all its slots are, `memory_share` how much of the
        device's memory is in use (None: not known); it is asked seldom. `now` is in seconds, of a
        clock that never goes back.
        """
        if self._settled:
            return self.slots
        if not at_work or self._window is None or steps < self._window[1]:  # fewer: of another process
            self._window = (now, steps) if at_work else None
            return self.slots
        began, before = self._window
        if now - began >= WINDOW_SECONDS:
            self._window = None
            self._decide((steps - before) / (now - began), memory_share())
        return self.slots

    def _decide(self, steps_a_second: float, memory_share: float | None) -> None:
        if self._fewer is not None and steps_a_second < WORTHWHILE * self._fewer[1]:
            self.slots, self._settled = self._fewer[0], True
            return
        fit = self._most if not memory_share else int(self.slots * MEMORY_SHARE / memory_share)
        more = min(2 * self.slots, self._most, fit)
        self._settled = more <= self.slots
        if not self._settled:
            self._fewer, self.slots = (self.slots, steps_a_second), more
