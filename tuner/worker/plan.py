"""What the trials of a study are, and which of them may be trained together: known beforehand for most methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from tuner.search import LEARNERS, SAMPLERS, History
from tuner.spec.space import Point
from tuner.spec.stacking import shape_of, with_engine
from tuner.storage.claims import Supply
from tuner.storage.studies import StudyRecord

HORIZON = 1000  # numbers, from the lowest that waits: so far ahead companions are looked for
WARM_NUMBERS = 50  # whose points are found at a time while nobody waits: half a millisecond each
MEASURED_NUMBERS, MEASURED_CONFIGS = 10, 3  # of the first so many trials, the first so many that can be stacked


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A trial before it is claimed."""

    point: Point
    config: str  # a TrialConfig as JSON
    shape: str | None  # what companions have in common; None: it is trained singly


class Plan:
    def __init__(self, study: StudyRecord) -> None:
        self._study = study
        self._spec = study.spec
        self.learns = self._spec.search.method in LEARNERS
        self.of_number: Callable[[int], Planned] = lru_cache(maxsize=2 * HORIZON)(self._of_number)

    def of_point(self, point: Point) -> Planned:
        config = self._study.resolve(point)
        return Planned(point=point, config=config.model_dump_json(), shape=shape_of(config))

    def _of_number(self, number: int) -> Planned:
        """Only where the method does not learn: `of_number` keeps it."""
        return self.of_point(self._drawn(number))

    def _drawn(self, number: int) -> Point:
        search = self._spec.search
        nothing = History(direction=self._spec.objective.direction)
        return SAMPLERS[search.method](self._spec.space, nothing, search.seed, number)

    def of_shape(self, shape: str, supply: Supply, most: int) -> list[int]:
        """Numbers to be had of this shape: all that wait, and the lowest new ones."""
        new = (number for number in self._new(supply) if self.of_number(number).shape == shape)
        return [
            *(number for number in supply.waiting if self.of_number(number).shape == shape),
            *islice(new, most),
        ]

    def warm(self, supply: Supply) -> None:
        """Finds some points that `of_shape` will ask for."""
        if not self.learns and self._study.engine is not None and self._study.engine.members > 1:
            for number in self._new(supply)[:WARM_NUMBERS]:
                self.of_number(number)

    def _new(self, supply: Supply) -> range:
        """Not farther than HORIZON from the lowest that waits: or ever more would be skipped."""
        lowest = min([*supply.waiting, supply.next])
        return range(supply.next, min(supply.next + supply.numbers, lowest + HORIZON))

    def to_measure(self) -> Sequence[str]:
        """Configurations by which engines are compared; none where no stack can ever be.

        A study that is compared with others has their engine, whatever comes of it for this one.
        """
        search, trials = self._spec.search, self._study.budget.trials
        if self.learns and search.parallel_proposals == 1 and not self._study.compared:
            return ()
        numbers = range(MEASURED_NUMBERS if trials is None else min(MEASURED_NUMBERS, trials))
        configs = (with_engine(self._spec.space.resolve(self._drawn(number)), "stacks") for number in numbers)
        stackable = (config.model_dump_json() for config in configs if shape_of(config) is not None)
        return list(islice(stackable, MEASURED_CONFIGS))
