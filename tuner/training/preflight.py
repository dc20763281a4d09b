"""What can be said of a study before it begins: how large its models get, which cannot be, how long a trial takes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.spec.config import TrialConfig
from tuner.spec.space import Choices, Parameter, Point, Space, Value
from tuner.training.course import Member
from tuner.training.data import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models import parameter_count
from tuner.training.state import State

TIMED_STEPS = 5
TURNAROUND_SECONDS = 0.015  # measured: to claim a trial, keep its checkpoint and tell its end, whatever it trains
FORWARD_SHARE = 1 / 3  # of a training step: backward takes about twice as long as forward


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Models at the corners of a space."""

    smallest: int | None  # trainable parameters; None: no corner is feasible
    largest: int | None
    infeasible: tuple[str, ...]  # corners that cannot be built and why, one for each reason


def model_sizes(space: Space, info: DataInfo) -> ModelSizes:
    """Counts parameters where every knob of the model is at its lowest or its highest, without memory for them.

    Of choices that are no numbers all are tried; the layers of a knob with one value a layer move together. A corner
    takes a fifth of a millisecond; a CNN with every knob searched has 1,344.
    """
    counts: list[int] = []
    infeasible: dict[str, str] = {}  # reason -> the first corner with it
    for point in _corners(space):
        try:
            counts.append(parameter_count(space.resolve(point).model, info))
        except InfeasibleModel as error:
            knobs = {parameter.name for parameter in _knobs(space)}
            where = ", ".join(f"{name}: {value}" for name, value in point.items() if name in knobs)
            infeasible.setdefault(str(error), f"{where or 'every model'}: {error}")
    return ModelSizes(
        smallest=min(counts, default=None), largest=max(counts, default=None), infeasible=tuple(infeasible.values())
    )


def seconds_per_trial(config: TrialConfig, data_folder: Path, device: torch.device) -> float:
    """About how long a trial takes that is not pruned, from a few steps on one batch with the threads now set.

    Raises InfeasibleModel, DataError, and what torch raises where memory does not suffice.
    """
    began = time.monotonic()
    state = State(Member(config=config, seed=0, number=0), data_folder, device)
    setup = time.monotonic() - began
    inputs, targets = next(state.train_part.batches(config.training.batch_size))
    state.begin_pass()
    state.step(inputs, targets).item()  # the first one allocates, and chooses its algorithms
    began = time.monotonic()
    for _ in range(TIMED_STEPS):
        state.step(inputs, targets).item()
    seconds_per_example = (time.monotonic() - began) / TIMED_STEPS / len(targets)
    epoch = seconds_per_example * (len(state.train_part) + FORWARD_SHARE * len(state.validation_part))
    return TURNAROUND_SECONDS + setup + config.training.epochs * epoch


def _knobs(space: Space) -> list[Parameter]:
    return [parameter for parameter in space.parameters if parameter.path.startswith("model.")]


def _corners(space: Space) -> Iterator[Point]:
    """Points whose knobs of the model stand at their ends."""
    ends: dict[str, int] = {}  # path -> how many ends, the most of the cases and layers that share it
    for parameter in _knobs(space):
        ends[parameter.path] = max(ends.get(parameter.path, 0), len(_ends(parameter)))
    seen = set()
    for corner in itertools.product(*map(range, ends.values())):
        positions = dict(zip(ends, corner, strict=True))
        point = space.point(lambda parameter, positions=positions: _end(parameter, positions))  # type: ignore[misc]
        key = tuple(point.items())
        if key not in seen:  # corners may differ in knobs that are not active
            seen.add(key)
            yield point


def _end(parameter: Parameter, positions: dict[str, int]) -> Value:
    ends = _ends(parameter)
    return ends[min(positions.get(parameter.path, 0), len(ends) - 1)]


def _ends(parameter: Parameter) -> tuple[Value, ...]:
    domain = parameter.domain
    if not isinstance(domain, Choices):
        return (domain.low, domain.high)
    numbers = [choice for choice in domain.choices if isinstance(choice, int | float)]
    return (min(numbers), max(numbers)) if len(numbers) == len(domain.choices) else domain.choices
