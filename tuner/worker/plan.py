"""What the trials of a study are, and which of them may be trained together: known beforehand, or proposed in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from tuner.search import LEARNERS, SAMPLERS, History
from tuner.spec.space import Point
from tuner.spec.stacking import shape_of
from tuner.storage.claims import Supply
from tuner.storage.connection import Database
from tuner.storage.history import HistoryReader
from tuner.storage.studies import StudyRecord

HORIZON = 1000  # numbers, from the lowest that waits: so far ahead companions are looked for
WARM_NUMBERS = 50  # whose points are found at a time while nobody waits: half a millisecond each


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A trial before it is claimed."""

    point: Point
    config: str  # a TrialConfig as JSON
    shape: str | None  # what companions have in common; None: it is trained singly


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial for a number that may not be claimed yet."""

    number: int
    planned: Planned
    looked_at: Mapping[str, Any]  # of the history, by the sampler


class Plan:
    def __init__(self, study: StudyRecord, reader: HistoryReader) -> None:
        self._study = study
        self._spec = study.spec
        self._reader = reader
        self._nothing = History(direction=reader.direction)
        self._ahead: Proposal | None = None
        self.crowded = False  # others take the numbers that it looks ahead to
        self.learns = self._spec.search.method in LEARNERS
        self.of_number: Callable[[int], Planned] = lru_cache(maxsize=2 * HORIZON)(self._of_number)

    def of_point(self, point: Point) -> Planned:
        config = self._study.resolve(point)
        return Planned(point=point, config=config.model_dump_json(), shape=shape_of(config))

    # --- proposals --------------------------------------------------------------------------------------------------

    def look_ahead(self, db: Database, supply: Supply, number: int) -> None:
        """Proposes the point of this number, while what was claimed trains.

        It claims nothing: where another worker takes that number, the proposal is dropped.
        """
        if self.learns:
            if self._ahead is None or self._ahead.number < number:
                self._ahead = self._propose(db, number)
        elif self._study.engine is not None and self._study.engine.members > 1:
            for coming in self._new(supply)[:WARM_NUMBERS]:  # `of_shape` will ask for them
                self.of_number(coming)

    def expect(self, db: Database, number: int) -> Planned:
        """What the trial of this number would be, if it were claimed now; it is kept."""
        if self._ahead is None or self._ahead.number != number:
            self._ahead = self._propose(db, number)
        return self._ahead.planned

    def proposal(self, db: Database, number: int) -> Proposal:
        """For a trial that was claimed: as it was proposed ahead, if it was."""
        ahead = self._ahead
        self.crowded = ahead is not None and ahead.number != number
        return self._propose(db, number) if ahead is None or self.crowded else ahead

    def _propose(self, db: Database, number: int) -> Proposal:
        if not self.learns:
            return Proposal(number=number, planned=self.of_number(number), looked_at={"finished": 0, "running": []})
        history = self._reader.read(db)
        running = tuple(other for other in history.running if other.params and other.number != number)
        point = self._drawn(number, replace(history, running=running))
        looked_at = {"finished": history.finish_seq, "running": [other.number for other in running]}
        return Proposal(number=number, planned=self.of_point(point), looked_at=looked_at)

    def _of_number(self, number: int) -> Planned:
        """Only where the method does not learn: `of_number` keeps it."""
        return self.of_point(self._drawn(number, self._nothing))

    def _drawn(self, number: int, history: History) -> Point:
        search = self._spec.search
        return SAMPLERS[search.method](self._spec.space, history, search.seed, number)

    # --- stacks -----------------------------------------------------------------------------------------------------

    def of_shape(self, shape: str, supply: Supply, most: int) -> list[int]:
        """Numbers to be had of this shape: all that wait, and the lowest new ones."""
        new = (number for number in self._new(supply) if self.of_number(number).shape == shape)
        return [
            *(number for number in supply.waiting if self.of_number(number).shape == shape),
            *islice(new, most),
        ]

    def _new(self, supply: Supply) -> range:
        """Not farther than HORIZON from the lowest that waits: or ever more would be skipped."""
        lowest = min([*supply.waiting, supply.next])
        return range(supply.next, min(supply.next + supply.numbers, lowest + HORIZON))
