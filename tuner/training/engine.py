"""Which engine trains a study's trials fastest here: a few steps of each, timed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from tuner.spec.config import TrialConfig
from tuner.spec.stacking import Engine, shape_of
from tuner.training.course import Member
from tuner.training.errors import InfeasibleModel
from tuner.training.stack import Stack
from tuner.training.state import State

TIMED_STEPS = 4
MOST_MEMBERS = 128
LONGEST_STEP = 0.05  # seconds: where a step takes so long, more members no longer save overhead
SLOW_STEP = 0.01  # seconds: a single trial whose step takes so long has no overhead worth saving
WORTHWHILE = 0.9  # of the seconds that a member took in a smaller stack, or alone


def measure(configs: Sequence[TrialConfig], data_folder: Path, device: torch.device) -> Engine:
    """The engine for trials like these, all stackable, the first ones of a study.

    A trial that finds no companion of its shape has a silent one and may cost more in a stack than singly: what counts
    is the sum over these trials, each with those of its shape beside it, at the costs of the commonest shape that can
    be built. Raises DataError.
    """
    shapes = Counter(shape_of(config) for config in configs)
    examples = {shape_of(config): config for config in reversed(configs)}
    for shape, _ in shapes.most_common():
        try:
            return _faster(examples[shape], [*shapes.values()], data_folder, device)
        except InfeasibleModel:
            continue
    return Engine(name="single")


def _faster(config: TrialConfig, together: Sequence[int], data_folder: Path, device: torch.device) -> Engine:
    """For trials that cost like this one, so many of each shape."""
    alone = State(_member(config, 0), data_folder, device)
    if not alone.train_part.resident:  # members gather each their own examples
        return Engine(name="single")
    single = _seconds_a_step(alone)
    if single > SLOW_STEP and device.type == "cpu":
        return Engine(name="single")
    costs = _costs(config, data_folder, device, single)
    if sum(count * _cost(costs, count) for count in together) < WORTHWHILE * single * sum(together):
        return Engine(name="stacks", members=max(costs))
    return Engine(name="single")


def _costs(config: TrialConfig, data_folder: Path, device: torch.device, single: float) -> dict[int, float]:
    """Members of a stack -> seconds that a step takes for each of them; as long as more of them pay."""
    costs: dict[int, float] = {}
    members, best = 1, float("inf")
    while members <= MOST_MEMBERS:
        stack = Stack([_member(config, number) for number in range(members)], data_folder, device)
        step = _seconds_a_step(stack)
        cost = step / members
        if members > 2 and cost > WORTHWHILE * best:
            break
        costs[members], best = cost, cost
        if step > LONGEST_STEP or (members > 1 and cost > 2 * single):
            break
        members *= 2
    return costs


def _cost(costs: dict[int, float], count: int) -> float:
    """Of each of so many trials of one shape."""
    return costs[max(members for members in costs if members <= count)]


def _member(config: TrialConfig, number: int) -> Member:
    return Member(config=config, seed=0, number=number)


def _seconds_a_step(network: State | Stack) -> float:
    """The least of a few; the first two allocate memory and choose algorithms."""
    seconds = []
    steps = network.train()
    for _ in range(2 + TIMED_STEPS):
        began = time.perf_counter()
        if next(steps, "over") == "over":
            steps = network.train()
            next(steps)
        if network.device.type == "cuda":
            torch.cuda.synchronize(network.device)
        seconds.append(time.perf_counter() - began)
    steps.close()
    return min(seconds[2:])
