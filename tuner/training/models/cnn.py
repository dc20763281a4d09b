"""Convolutional networks for images."""

from __future__ import annotations

from torch import Tensor, nn

from tuner.spec.config import CnnConfig
from tuner.training.data.dataset import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models.layers import ACTIVATIONS, dropout, per_layer

POOLING = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
MONOTONE = ("relu", "elu", "leaky_relu", "tanh", "sigmoid")


class FlattenMap(nn.Module):
    """(n, channels, height, width) to (n, height * width * channels): a view of a map in the channels_last layout."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


def build_cnn(config: CnnConfig, info: DataInfo) -> nn.Module:
    """Blocks of convolution, batch norm, activation, pooling and dropout; a dense layer; the output.

    (n, channels, height, width) to (n, outputs). Raises InfeasibleModel where pooling leaves no map.
    """
    channels, height, width = info.input_shape
    modules: list[nn.Module] = []
    for block, filters in enumerate(per_layer("channels", config.channels, config.layers), start=1):
        modules += _same_convolution(channels, filters, config.kernel, bias=not config.batch_norm)
        if config.batch_norm:
            modules.append(nn.BatchNorm2d(filters))
        activation = ACTIVATIONS[config.activation]()
        if config.pooling == "none":
            modules.append(activation)
        else:
            if min(height, width) < 2:
                raise InfeasibleModel(
                    f"cnn: a map of {height} x {width} is left after {block - 1} of {config.layers} layers, too small "
                    "to be halved again; use fewer layers or pooling: none"
                )
            pooling = POOLING[config.pooling](2)
            # The greatest value stays the greatest under a monotone function, which then has a quarter of the work.
            pooled_first = config.pooling == "max" and config.activation in MONOTONE
            modules += [pooling, activation] if pooled_first else [activation, pooling]
            height, width = height // 2, width // 2
        modules += dropout(config.dropout)
        channels = filters
    modules.append(FlattenMap())
    features = channels * height * width
    if config.dense_units:
        modules += [nn.Linear(features, config.dense_units), ACTIVATIONS[config.activation](), *dropout(config.dropout)]
        features = config.dense_units
    return nn.Sequential(*modules, nn.Linear(features, info.outputs))


def _same_convolution(channels: int, filters: int, kernel: int, *, bias: bool) -> list[nn.Module]:
    """A convolution that keeps height and width."""
    if kernel % 2:
        return [nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=bias)]
    before, after = (kernel - 1) // 2, kernel // 2  # an even filter has no middle: one more on the far side
    return [nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(channels, filters, kernel, bias=bias)]
