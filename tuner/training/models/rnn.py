"""Recurrent networks for sequences, and for images read row by row."""

from __future__ import annotations

from torch import Tensor, nn

from tuner.spec.config import RnnConfig
from tuner.training.data.dataset import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models.layers import Dropout, per_layer

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Recurrent layers with dropout after each; the last state, of both directions if there are two.

    (n, steps, features) to (n, units of the last layer * directions). The layers stand one by one since torch's
    stacked ones drop out by the global generator and want the same width everywhere.
    """

    def __init__(self, config: RnnConfig, features: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList()
        for units in per_layer("units", config.units, config.layers):
            self.cells.append(CELLS[config.cell](features, units, batch_first=True, bidirectional=config.bidirectional))
            features = units * (1 + config.bidirectional)
        self.dropout = Dropout(config.dropout) if config.dropout > 0.0 else nn.Identity()
        self.features = features

    def forward(self, inputs: Tensor) -> Tensor:
        *lower, last = self.cells
        for cell in lower:
            inputs = self.dropout(cell(inputs)[0])
        _, state = last(inputs)
        hidden = state[0] if isinstance(state, tuple) else state  # (directions, n, units); an LSTM adds its cell's
        features: Tensor = self.dropout(hidden.transpose(0, 1).flatten(1))
        return features


class Rows(nn.Module):
    """(n, channels, height, width) to a sequence of rows (n, height, channels * width)."""

    def forward(self, images: Tensor) -> Tensor:
        return images.transpose(1, 2).flatten(2)


class RelativeToLast(nn.Module):
    """Adds the last value of the target that the model has seen to its forecast of (n, horizon)."""

    def __init__(self, model: nn.Module, target_feature: int, mean: float, std: float) -> None:
        super().__init__()
        self.model = model
        self.target_feature = target_feature
        self.mean = mean  # inputs come normalised, targets do not
        self.std = std

    def forward(self, inputs: Tensor) -> Tensor:
        last = inputs[:, -1, self.target_feature, None] * self.std + self.mean
        difference: Tensor = self.model(inputs)
        return last + difference


def build_rnn(config: RnnConfig, info: DataInfo) -> nn.Module:
    """Recurrent layers over a sequence, whose last state a linear layer reads out.

    (n, steps, features), or images (n, channels, height, width), to (n, outputs). Raises InfeasibleModel where
    `relative_to_last` has nothing to be relative to.
    """
    if info.kind == "image":
        channels, _, width = info.input_shape
        recurrent = Recurrent(config, channels * width)
        layers: list[nn.Module] = [Rows(), recurrent]
    else:
        recurrent = Recurrent(config, info.input_shape[1])
        layers = [recurrent]
    model = nn.Sequential(*layers, nn.Linear(recurrent.features, info.outputs))
    if not config.relative_to_last:
        return model
    if info.task != "forecast":
        raise InfeasibleModel("model.relative_to_last is for forecasts; leave it out")
    if info.target_feature is None:
        raise InfeasibleModel("model.relative_to_last needs the target among data.inputs")
    return RelativeToLast(model, info.target_feature, info.mean, info.std)
