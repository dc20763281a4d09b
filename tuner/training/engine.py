"""Which engine trains a study's trials fastest here: a few steps of each, timed."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.spec.config import TrialConfig
from tuner.spec.stacking import Engine, Group, shape_of, with_engine
from tuner.training.batches import load_part
from tuner.training.captured import EAGER_STEPS
from tuner.training.course import Member
from tuner.training.device import own_stream
from tuner.training.errors import InfeasibleModel, is_out_of_memory
from tuner.training.progress import Phase, Progress
from tuner.training.stack import Stack
from tuner.training.state import State
from tuner.training.turns import Turn, Turns

UNTIMED_STEPS = {"cpu": 2}  # the first ones allocate memory and choose algorithms,
UNTIMED_CAPTURED_STEPS = EAGER_STEPS + 1  # and on a GPU one is captured
TIMED_STEPS = 4
MOST_MEMBERS = 128
LONGEST_STEP = 0.05  # seconds: where a step takes so long, more members no longer save overhead
SLOW_STEP = 0.01  # seconds: a single trial whose step takes so long has no overhead worth saving
LONGEST_LOOK = 1.0  # seconds, after which no further step is timed
WORTHWHILE = 0.9  # of the seconds that a member took in a smaller stack, or alone


@dataclass(frozen=True, kw_only=True)
class Measured:
    engine: Engine  # of no members where no stack can be built
    gain: float = 1.0  # trials in a given time, of one such network, as a multiple of those by the single engine


def measure(groups: Sequence[Group], data_folder: Path, device: torch.device, progress: Progress) -> Measured:
    """The engine for trials like these: the faster one, or the one that the file asks for.

    A trial that finds no companion of its shape has a silent one and may cost more in a stack than singly: what counts
    is the sum over these groups, at the costs of the commonest shape that can be built. Where the file asks for stacks,
    what is found out is how large they had best be. On a GPU too, one network is measured at a time: what it gains by
    lanes is not known. Raises DataError.
    """
    progress.enter(Phase.TRAIN)
    if not load_part(data_folder, "train", device).resident:  # members gather each their own examples
        return Measured(engine=Engine(name="single", members=0))
    measurement = _Measurement(data_folder, device, progress)
    asked_for = groups[0].config.training.engine == "stacks"
    shapes: Counter[str | None] = Counter()
    examples: dict[str | None, TrialConfig] = {}
    for group in groups:
        config = with_engine(group.config, "stacks")
        shapes[shape_of(config)] += group.trials
        examples.setdefault(shape_of(config), config)
    for shape, _ in shapes.most_common():
        try:
            with own_stream(device):
                return measurement.compare(examples[shape], [group.trials for group in groups], asked_for=asked_for)
        except InfeasibleModel:
            continue
    return Measured(engine=Engine(name="single"))


@dataclass(frozen=True)
class _Measurement:
    data_folder: Path
    device: torch.device
    progress: Progress

    def compare(self, config: TrialConfig, groups: Sequence[int], *, asked_for: bool) -> Measured:
        """For trials that cost like this one, so many of which are together in each group."""
        single = self.seconds_a_step(State(_member(config, 0), self.data_folder, self.device))
        if single > SLOW_STEP and self.device.type == "cpu" and not asked_for:
            return Measured(engine=Engine(name="single"))
        costs = self.costs(config, math.inf if asked_for else single, max(groups))
        gain = sum(groups) * single / sum(count * _cost(costs, count) for count in groups)
        if not asked_for and gain * WORTHWHILE <= 1.0:
            return Measured(engine=Engine(name="single"))
        return Measured(engine=Engine(name="stacks", members=max(costs)), gain=gain)

    def costs(self, config: TrialConfig, single: float, most: int) -> dict[int, float]:
        """Members of a stack -> seconds a step takes for each of them; as long as more of them pay, up to `most`."""
        costs: dict[int, float] = {}
        members, best = 1, float("inf")
        while members < min(2 * most, MOST_MEMBERS + 1):
            stacked = [_member(config, number) for number in range(members)]
            try:
                step = self.seconds_a_step(Stack(stacked, self.data_folder, self.device))
            except (MemoryError, RuntimeError) as error:
                if not costs or not is_out_of_memory(error):
                    raise
                break
            cost = step / members
            if members > 2 and cost > WORTHWHILE * best:
                break
            costs[members], best = cost, cost
            if members > 1 and (step > LONGEST_STEP or cost > 2 * single):
                break
            members *= 2
        return costs

    def seconds_a_step(self, network: State | Stack) -> float:
        """The least of a few, of slow ones of fewer."""
        untimed = UNTIMED_STEPS.get(self.device.type, UNTIMED_CAPTURED_STEPS)
        seconds: list[float] = []
        while len(seconds) < untimed + TIMED_STEPS:
            with closing(network.train()) as turns:
                for step in itertools.islice(self._timed(turns), untimed + TIMED_STEPS - len(seconds)):
                    seconds.append(step)
                    if len(seconds) > untimed and sum(seconds) > LONGEST_LOOK:
                        return min(seconds[untimed:])
        return min(seconds[untimed:])

    def _timed(self, turns: Turns[object]) -> Iterator[float]:
        """Seconds of each step of a pass."""
        began = time.perf_counter()
        for turn in turns:
            if turn is Turn.STEPPED:
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                self.progress.tick()
                now = time.perf_counter()
                yield now - began
                began = now


def _cost(costs: dict[int, float], count: int) -> float:
    """Of each of so many trials of one shape."""
    return costs[max(members for members in costs if members <= count)]


def _member(config: TrialConfig, number: int) -> Member:
    return Member(config=config, seed=0, number=number)
