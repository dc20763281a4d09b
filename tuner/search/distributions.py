"""The domains of a space in Optuna's words: what its schema stores and its samplers read."""

from __future__ import annotations

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.spec.space import Choices, FloatRange, IntRange, Parameter


def distribution(parameter: Parameter) -> BaseDistribution:
    match parameter.domain:
        case IntRange(low=low, high=high, step=step, log=log):
            return IntDistribution(low=low, high=high, step=step, log=log)
        case FloatRange(low=low, high=high, step=step, log=log):
            return FloatDistribution(low=low, high=high, step=step, log=log)
        case Choices(choices=choices):
            return CategoricalDistribution(choices=choices)
