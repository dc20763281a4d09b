"""Dense networks for anything with a fixed shape."""

from __future__ import annotations

import math

from torch import nn

from tuner.spec.config import MlpConfig
from tuner.training.data.dataset import DataInfo
from tuner.training.models.layers import ACTIVATIONS, dropout, per_layer


def build_mlp(config: MlpConfig, info: DataInfo) -> nn.Module:
    """Dense layers with an activation and dropout after each. (n, *input_shape) to (n, outputs)."""
    modules: list[nn.Module] = [nn.Flatten()]
    features = math.prod(info.input_shape)
    for units in per_layer("units", config.units, config.layers):
        modules += [nn.Linear(features, units), ACTIVATIONS[config.activation](), *dropout(config.dropout)]
        features = units
    return nn.Sequential(*modules, nn.Linear(features, info.outputs))
