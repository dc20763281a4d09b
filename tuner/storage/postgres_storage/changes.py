"""What is to be written of a trial: to the copy held in memory, and to its rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial

from tuner.errors import InvalidInput

LONGEST_NAME = 512  # characters, in Optuna's tables


@dataclass(kw_only=True)
class Changes:
    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)  # in Optuna's internal form
    user_attributes: dict[str, Any] = field(default_factory=dict)
    system_attributes: dict[str, Any] = field(default_factory=dict)
    reported: dict[int, float] = field(default_factory=dict)  # step -> intermediate value
    objectives: dict[int, float] = field(default_factory=dict)  # objective, from 0 -> value

    def followed_by(self, later: Changes) -> Changes:
        return Changes(**{kind.name: getattr(self, kind.name) | getattr(later, kind.name) for kind in fields(self)})

    @classmethod
    def of(cls, template: FrozenTrial) -> Changes:
        """All that a trial holds."""
        return cls(
            params={
                name: (distribution.to_internal_repr(template.params[name]), distribution)
                for name, distribution in template.distributions.items()
            },
            user_attributes=template.user_attrs,
            system_attributes=template.system_attrs,
            reported=template.intermediate_values,
            objectives=numbered(template.values),
        )

    def applied_to(self, trial: FrozenTrial) -> FrozenTrial:
        """A changed copy: what was read of a storage must not change any more."""
        changed = copy.copy(trial)
        external = {name: kind.to_external_repr(value) for name, (value, kind) in self.params.items()}
        changed.params = trial.params | external
        changed.distributions = trial.distributions | {name: kind for name, (_, kind) in self.params.items()}
        changed.user_attrs = trial.user_attrs | self.user_attributes
        changed.system_attrs = trial.system_attrs | self.system_attributes
        changed.intermediate_values = trial.intermediate_values | self.reported
        if self.objectives:
            changed.values = [value for _, value in sorted(self.objectives.items())]
        return changed

    def arguments(self) -> dict[str, Any]:
        """The values of the statements: arrays of equal length for each kind."""
        return {
            "param_names": list(self.params),
            "param_values": [float(value) for value, _ in self.params.values()],
            "param_distributions": [distribution_to_json(kind) for _, kind in self.params.values()],
            "user_keys": list(self.user_attributes),
            "user_values": [json.dumps(value) for value in self.user_attributes.values()],
            "system_keys": list(self.system_attributes),
            "system_values": [json.dumps(value) for value in self.system_attributes.values()],
            "steps": list(self.reported),
            "reported": [float(value) for value in self.reported.values()],
            "objectives": list(self.objectives),
            "objective_values": [float(value) for value in self.objectives.values()],
        }


def numbered(values: Sequence[float] | None) -> dict[int, float]:
    return dict(enumerate(values or ()))


# What the database would refuse is refused when it is set: later, it would take with it what is written beside it.


def storable_name(name: str) -> str:
    """The name of a parameter or an attribute. Raises InvalidInput."""
    if not isinstance(name, str) or any(char == "\0" or "\ud800" <= char <= "\udfff" for char in name):
        raise InvalidInput(f"{name!r} is no name of a parameter or an attribute: it must be text, without NUL")
    if len(name) > LONGEST_NAME:
        raise InvalidInput(
            f"the name {name[:20]}… of a parameter or an attribute is too long: "
            f"{len(name)} characters, where {LONGEST_NAME} are possible"
        )
    return name


def storable_value(value: Any) -> Any:
    """As it will be read again; the caller's may change before it is written. Raises TypeError for what is no JSON."""
    return json.loads(json.dumps(value))


def storable_distribution(distribution: BaseDistribution) -> BaseDistribution:
    """Raises TypeError for choices that are no JSON."""
    distribution_to_json(distribution)
    return distribution
