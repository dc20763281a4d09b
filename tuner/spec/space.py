"""The search space: an ordered list of entries, each a parameter to search or a constant, some on conditions.

A point gives the searched parameters their values, under their recorded names. Walking the entries in order with a
function that chooses gives every knob its value; samplers, the grid and the reading of a stored point are three
such functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.spec.config import TrialConfig

Value = int | float | str | bool | None
Point = dict[str, Value]  # recorded name -> value, active parameters only, in the space's order


@dataclass(frozen=True, kw_only=True)
class IntRange:
    low: int
    high: int  # included
    step: int = 1
    log: bool = False
    points: int | None = None  # grid only; None: every value


@dataclass(frozen=True, kw_only=True)
class FloatRange:
    low: float
    high: float  # included
    step: float | None = None
    log: bool = False
    points: int | None = None  # grid only; needed where there is no step


@dataclass(frozen=True, kw_only=True)
class Choices:
    choices: tuple[Value, ...]


Domain = IntRange | FloatRange | Choices


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Holds where the knob at `path` exists and has one of `values`."""

    path: str
    values: tuple[Value, ...]

    def holds(self, values: Mapping[str, Any]) -> bool:
        return self.path in values and values[self.path] in self.values


@dataclass(frozen=True, kw_only=True)
class Constant:
    path: str  # where the knob stands in the study file: "training.momentum"
    value: Any  # a scalar, or a tuple for a knob with one value a layer
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Parameter:
    path: str  # "training.learning_rate"
    name: str  # as recorded, unique: "learning_rate", "learning_rate[sgd]", "units[2]"
    domain: Domain
    when: tuple[Condition, ...] = ()
    layer: int | None = None  # set where the knob has one value a layer


Entry = Parameter | Constant


@dataclass(frozen=True, kw_only=True)
class Space:
    """Entries stand behind those that their conditions name."""

    entries: tuple[Entry, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, Parameter))

    def walk(self, choose: Callable[[Parameter], Value]) -> dict[str, Any]:
        """Every knob's value by path; `choose` is asked for each active parameter, in order.

        Knobs with one value a layer come as tuples.
        """
        values: dict[str, Any] = {}
        for entry in self.entries:
            if not all(condition.holds(values) for condition in entry.when):
                continue
            if isinstance(entry, Constant):
                values[entry.path] = entry.value
            elif entry.layer is None:
                values[entry.path] = choose(entry)
            else:
                values[entry.path] = (*values.get(entry.path, ()), choose(entry))
        return values

    def point(self, choose: Callable[[Parameter], Value]) -> Point:
        """The point that `choose` makes: active parameters only."""
        point: Point = {}

        def record(parameter: Parameter) -> Value:
            return point.setdefault(parameter.name, choose(parameter))

        self.walk(record)
        return point

    def resolve(self, point: Mapping[str, Value]) -> TrialConfig:
        """The trial that a point stands for.

        Raises KeyError where the point lacks an active parameter.
        """
        sections: dict[str, dict[str, Any]] = {}
        for path, value in self.walk(lambda parameter: point[parameter.name]).items():
            section, _, knob = path.partition(".")
            sections.setdefault(section, {})[knob] = value
        return TrialConfig.model_validate(sections)
