"""Dense networks for anything with a fixed shape."""

from __future__ import annotations

import math

from tuner.spec.config import MlpConfig
from tuner.training.data.dataset import DataInfo
from tuner.training.models.layers import Kit, Layer, per_layer


def build_mlp(config: MlpConfig, info: DataInfo, kit: Kit[Layer]) -> list[Layer]:
    """Dense layers with an activation and dropout after each. (n, *input_shape) to (n, outputs)."""
    chain: list[Layer] = [kit.flatten()]
    features = math.prod(info.input_shape)
    for units in per_layer("units", config.units, config.layers):
        chain += [kit.linear(features, units), kit.activation(config.activation), *kit.dropout(config.dropout)]
        features = units
    return [*chain, kit.linear(features, info.outputs)]
