"""Convolutional networks for images."""

from __future__ import annotations

from tuner.spec.config import CnnConfig
from tuner.training.data.dataset import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models.layers import Kit, Layer, per_layer

MONOTONE = ("relu", "elu", "leaky_relu", "tanh", "sigmoid")


def build_cnn(config: CnnConfig, info: DataInfo, kit: Kit[Layer]) -> list[Layer]:
    """Blocks of convolution, batch norm, activation, pooling and dropout; a dense layer; the output.

    (n, channels, height, width) to (n, outputs). Raises InfeasibleModel where pooling leaves no map.
    """
    channels, height, width = info.input_shape
    chain: list[Layer] = []
    for block, filters in enumerate(per_layer("channels", config.channels, config.layers), start=1):
        chain += kit.convolution(channels, filters, config.kernel, bias=not config.batch_norm)
        if config.batch_norm:
            chain.append(kit.batch_norm(filters))
        activation = kit.activation(config.activation)
        if config.pooling == "none":
            chain.append(activation)
        else:
            if min(height, width) < 2:
                raise InfeasibleModel(
                    f"cnn: a map of {height} x {width} is left after {block - 1} of {config.layers} layers, too small "
                    "to be halved again; use fewer layers or pooling: none"
                )
            pooling = kit.pooling(config.pooling)
            # The greatest value stays the greatest under a monotone function, which then has a quarter of the work.
            pooled_first = config.pooling == "max" and config.activation in MONOTONE
            chain += [pooling, activation] if pooled_first else [activation, pooling]
            height, width = height // 2, width // 2
        chain += kit.dropout(config.dropout)
        channels = filters
    chain.append(kit.flatten_map())
    features = channels * height * width
    if config.dense_units:
        dense = kit.linear(features, config.dense_units)
        chain += [dense, kit.activation(config.activation), *kit.dropout(config.dropout)]
        features = config.dense_units
    return [*chain, kit.linear(features, info.outputs)]
