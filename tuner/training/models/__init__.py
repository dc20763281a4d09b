"""Model families: a file each. A new one is a file, an entry in `FAMILIES` and a record in `tuner.spec.config`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tuner.spec.config import ModelConfig
from tuner.training.data.dataset import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models.cnn import build_cnn
from tuner.training.models.mlp import build_mlp
from tuner.training.models.rnn import build_rnn

FAMILIES: dict[str, Callable[[Any, DataInfo], nn.Module]] = {"cnn": build_cnn, "rnn": build_rnn, "mlp": build_mlp}


def build(config: ModelConfig, info: DataInfo) -> nn.Module:
    """The model, on the meta device: its shapes without memory or weights.

    It reads normalised inputs (n, *info.input_shape) and gives logits or a forecast (n, info.outputs).
    Raises InfeasibleModel.
    """
    if info.kind not in config.reads:
        raise InfeasibleModel(f"model.family: {config.family} reads no {info.kind} data")
    with torch.device("meta"):
        return FAMILIES[config.family](config, info)


def parameter_count(config: ModelConfig, info: DataInfo) -> int:
    """Trainable parameters, counted without memory for them. Raises InfeasibleModel."""
    return sum(parameter.numel() for parameter in build(config, info).parameters())


def materialise(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Gives a model from `build` memory on the CPU and initial weights, all drawn from `generator`."""
    model.to_empty(device="cpu")
    for module in model.modules():
        initialise(module, generator)
    return model


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Initial weights of one layer, distributed as torch's own `reset_parameters` would have them."""
    match module:
        case nn.Linear() | nn.Conv2d():
            # kaiming_uniform_(a=sqrt(5)) comes to the same bound as the bias has: 1 / sqrt(inputs of a unit)
            bound = 1.0 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(-bound, bound, generator=generator)
        case nn.LSTM() | nn.GRU():
            bound = 1.0 / math.sqrt(module.hidden_size)
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(-bound, bound, generator=generator)
        case nn.BatchNorm2d():
            module.reset_parameters()  # ones and zeros: nothing is drawn
        case _ if any(True for _ in module.parameters(recurse=False)):
            raise TypeError(f"no initial weights are known for {type(module).__name__}")
