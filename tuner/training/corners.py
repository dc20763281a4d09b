"""The corners of a space: its smallest and its largest model, each with the smallest and the largest batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.spec.config import TrainingConfig, TrialConfig
from tuner.spec.space import Choices, Parameter, Point, Space, Value
from tuner.training.data import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models import build, parameter_count
from tuner.training.optimizers import build_optimizer
from tuner.training.preflight import ModelSize
from tuner.training.randomness import CPU

BATCH, OPTIMIZER = "training.batch_size", "training.optimizer"

Ends = dict[str, int]  # path of a knob -> at which of its ends it stands; 0 for knobs that are not named


@dataclass(frozen=True, kw_only=True)
class Corner:
    model: ModelSize
    knobs: Point  # of the model, those that are searched
    config: TrialConfig
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Corners:
    corners: tuple[Corner, ...]  # none where no model can be built; fewer than four where some are the same
    fewest_parameters: int | None  # of all models whose knobs are at their ends; None: none can be built
    most_parameters: int | None
    infeasible: tuple[str, ...]  # models that cannot be built and why, one for each reason


def find_corners(space: Space, info: DataInfo) -> Corners:
    """Looks at the models where every knob is at its lowest or its highest, without memory for them.

    Of choices that are no numbers all are tried; the layers of a knob with one value a layer move together. Small and
    large is how much a model computes for an example, which decides time and memory better than its parameters do.
    """
    models: dict[int, list[Ends]] = {}  # parameters -> those with so many; the last one drops out most
    infeasible: dict[str, str] = {}  # reason -> the first model with it
    for ends in _ends_of_models(space):
        point = _point(space, ends)
        try:
            models.setdefault(parameter_count(space.resolve(point).model, info), []).append(ends)
        except InfeasibleModel as error:
            where = ", ".join(f"{name}: {value}" for name, value in _chosen(space, point, "model.").items())
            infeasible.setdefault(str(error), f"{where or 'every model'}: {error}")
    return Corners(
        corners=tuple(_corners(space, info, models)) if models else (),
        fewest_parameters=min(models, default=None),
        most_parameters=max(models, default=None),
        infeasible=tuple(infeasible.values()),
    )


def _corners(space: Space, info: DataInfo, models: dict[int, list[Ends]]) -> Iterator[Corner]:
    def work(parameters: int) -> int:
        config = space.resolve(_point(space, models[parameters][0]))
        return _multiplications(build(config.model, info), info) or parameters

    by_size = sorted(models, key=work)
    optimizer = _largest_optimizer(space)
    sizes: list[tuple[ModelSize, int, int]] = [("smallest", by_size[0], 0), ("largest", by_size[-1], -1)]
    seen = []
    for (size, parameters, place), batch in itertools.product(sizes, (0, 1)):
        point = _point(space, {**models[parameters][place], BATCH: batch, OPTIMIZER: optimizer})
        config = space.resolve(point)
        if config not in seen:
            seen.append(config)
            yield Corner(model=size, knobs=_chosen(space, point, "model."), config=config, parameters=parameters)


# --- sizes ----------------------------------------------------------------------------------------------------------


def _multiplications(model: nn.Module, info: DataInfo) -> int | None:
    """For one example. None where nothing is convolved: there all weights are used equally often."""
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return None
    counted = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal counted
        weight = layer.weight
        assert isinstance(weight, Tensor)
        counted += weight.numel() * (output.numel() // len(weight))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model.eval()(torch.empty(1, *info.input_shape, device="meta"))
    return counted


def _largest_optimizer(space: Space) -> int:
    """The end of the optimizer's knob whose optimizer keeps most for each weight."""
    knobs = [parameter for parameter in space.parameters if parameter.path == OPTIMIZER]
    ends = range(max((len(_ends(knob)) for knob in knobs), default=1))
    return max(ends, key=lambda end: _state_values(space.resolve(_point(space, {OPTIMIZER: end})).training))


def _state_values(config: TrainingConfig) -> int:
    """Numbers that the optimizer keeps of ten weights."""
    layer = nn.Linear(10, 1, bias=False)
    optimizer = build_optimizer(layer, config, CPU)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.numel() for value in kept if isinstance(value, Tensor))


# --- points ---------------------------------------------------------------------------------------------------------


def _ends_of_models(space: Space) -> Iterator[Ends]:
    """Every way to put the knobs of the model at their ends, each point once."""
    counts: Ends = {}  # path -> how many ends, the most of the cases and layers that share it
    for parameter in space.parameters:
        if parameter.path.startswith("model."):
            counts[parameter.path] = max(counts.get(parameter.path, 0), len(_ends(parameter)))
    seen = set()
    for corner in itertools.product(*map(range, counts.values())):
        ends = dict(zip(counts, corner, strict=True))
        key = tuple(_point(space, ends).items())
        if key not in seen:  # corners may differ in knobs that are not active
            seen.add(key)
            yield ends


def _point(space: Space, ends: Ends) -> Point:
    def choose(parameter: Parameter) -> Value:
        values = _ends(parameter)
        return values[min(ends.get(parameter.path, 0), len(values) - 1)]

    return space.point(choose)


def _ends(parameter: Parameter) -> tuple[Value, ...]:
    domain = parameter.domain
    if not isinstance(domain, Choices):
        return (domain.low, domain.high)
    numbers = [choice for choice in domain.choices if isinstance(choice, int | float)]
    return (min(numbers), max(numbers)) if len(numbers) == len(domain.choices) else domain.choices


def _chosen(space: Space, point: Point, section: str) -> Point:
    """What a point says of the knobs of a section."""
    names = {parameter.name for parameter in space.parameters if parameter.path.startswith(section)}
    return {name: value for name, value in point.items() if name in names}
