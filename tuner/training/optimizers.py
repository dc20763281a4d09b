"""Optimizers by name. A new one is an entry here and a name in `tuner.spec.config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from tuner.spec.config import TrainingConfig

Parameters = Iterable[nn.Parameter]
FUSED = ("cpu", "cuda")  # kinds of device on which torch updates all of a model's parameters in one call


def _sgd(parameters: Parameters, config: TrainingConfig, fused: bool) -> Optimizer:
    return SGD(
        parameters, config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
    )


def _adam(parameters: Parameters, config: TrainingConfig, fused: bool) -> Optimizer:
    return Adam(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=fused)


def _adamw(parameters: Parameters, config: TrainingConfig, fused: bool) -> Optimizer:
    return AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=fused)


def _rmsprop(parameters: Parameters, config: TrainingConfig, fused: bool) -> Optimizer:
    # torch has no fused one
    return RMSprop(parameters, config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)


OPTIMIZERS: dict[str, Callable[[Parameters, TrainingConfig, bool], Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
}


def build_optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> Optimizer:
    """Weight decay is each optimizer's own: decoupled for adamw, an L2 term in the gradient for the others."""
    return OPTIMIZERS[config.optimizer](model.parameters(), config, device.type in FUSED)
