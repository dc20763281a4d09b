"""Model families: a file each. A new one is a file, an entry here and a record in `tuner.spec.config`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuner.errors import ArtifactError
from tuner.spec.config import ModelConfig
from tuner.training.data.dataset import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models.cnn import build_cnn
from tuner.training.models.layers import Kit, Modules
from tuner.training.models.mlp import build_mlp
from tuner.training.models.rnn import build_rnn
from tuner.training.models.stacked import Stacked, StackedNetwork

# Families whose networks are chains of layers, from a kit: they can be trained in stacks.
CHAINS: dict[str, Callable[[Any, DataInfo, Kit[Any]], list[Any]]] = {"cnn": build_cnn, "mlp": build_mlp}
FAMILIES: dict[str, Callable[[Any, DataInfo], nn.Module]] = {"rnn": build_rnn}


def build(config: ModelConfig, info: DataInfo) -> nn.Module:
    """The model, on the meta device: its shapes without memory or weights.

    It reads normalised inputs (n, *info.input_shape) and gives logits or a forecast (n, info.outputs).
    Raises InfeasibleModel.
    """
    _check_kind(config, info)
    with torch.device("meta"):
        if config.family in CHAINS:
            return nn.Sequential(*CHAINS[config.family](config, info, Modules()))
        return FAMILIES[config.family](config, info)


def build_stacked(config: ModelConfig, info: DataInfo, members: int) -> StackedNetwork:
    """The same for so many members; its layers want their parameters. Raises InfeasibleModel."""
    _check_kind(config, info)
    return StackedNetwork(CHAINS[config.family](config, info, Stacked(members)), members)


def _check_kind(config: ModelConfig, info: DataInfo) -> None:
    if info.kind not in config.reads:
        raise InfeasibleModel(f"model.family: {config.family} reads no {info.kind} data")


def parameter_count(config: ModelConfig, info: DataInfo) -> int:
    """Trainable parameters, counted without memory for them. Raises InfeasibleModel."""
    return sum(parameter.numel() for parameter in build(config, info).parameters())


def materialise(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Gives a model from `build` memory on the CPU and initial weights, all drawn from `generator`."""
    model.to_empty(device="cpu")
    for module in model.modules():
        initialise(module, generator)
    return _channels_last(model)


def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Gives a model from `build` trained weights, and their device. Raises ArtifactError where they do not fit."""
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ArtifactError(f"these weights belong to another model: {error}".splitlines()[0]) from error
    return _channels_last(model)


def _channels_last(model: nn.Module) -> nn.Module:
    """Convolutions with the layout of their inputs (see `layers.Normalise`); other layers stay as they are."""
    placed: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs
    return placed


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Initial weights of one layer, distributed as torch's own `reset_parameters` would have them."""
    match module:
        case nn.Linear() | nn.Conv2d():
            bound = 1.0 / math.sqrt(module.weight[0].numel())  # what kaiming_uniform_(a=sqrt(5)) comes to
        case nn.LSTM() | nn.GRU():
            bound = 1.0 / math.sqrt(module.hidden_size)
        case nn.BatchNorm2d():
            module.reset_parameters()  # ones and zeros: nothing is drawn
            return
        case _:
            if next(module.parameters(recurse=False), None) is not None:
                raise TypeError(f"no initial weights are known for {type(module).__name__}")
            return
    for parameter in module.parameters(recurse=False):
        parameter.uniform_(-bound, bound, generator=generator)
