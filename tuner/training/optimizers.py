"""Optimizers by name. A new one is an entry here and a name in `tuner.spec.config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn, optim
from torch.optim import Optimizer

from tuner.spec.config import TrainingConfig

Parameters = Iterable[nn.Parameter]
Build = Callable[[Parameters, TrainingConfig, torch.device], Optimizer]
Kind = TypeVar("Kind", bound=Optimizer)
FUSED = ("cpu", "cuda")  # kinds of device on which torch updates all of a model's parameters in one call


def _eager(kind: type[Kind]) -> type[Kind]:
    """The optimizer without its hooks for torch.compile, which import the compiler: a second at a worker's start."""
    hooked = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    methods = {name: getattr(kind, name).__wrapped__ for name in hooked}
    methods["step"] = torch.no_grad()(methods["step"])  # as one of the hooks does
    return type(kind.__name__, (kind,), methods)


SGD, Adam, AdamW, RMSprop = _eager(optim.SGD), _eager(optim.Adam), _eager(optim.AdamW), _eager(optim.RMSprop)


def _sgd(parameters: Parameters, config: TrainingConfig, device: torch.device) -> Optimizer:
    return SGD(
        parameters,
        config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=device.type in FUSED,
    )


def _adaptive(kind: Callable[..., Optimizer]) -> Build:
    def build(parameters: Parameters, config: TrainingConfig, device: torch.device) -> Optimizer:
        return kind(
            parameters,
            config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type in FUSED,
            capturable=device.type == "cuda",
        )

    return build


def _rmsprop(parameters: Parameters, config: TrainingConfig, device: torch.device) -> Optimizer:
    # torch has no fused one
    return RMSprop(
        parameters,
        config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        capturable=device.type == "cuda",
    )


OPTIMIZERS: dict[str, Build] = {
    "sgd": _sgd,
    "adam": _adaptive(Adam),
    "adamw": _adaptive(AdamW),
    "rmsprop": _rmsprop,
}


def build_optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> Optimizer:
    """Weight decay is each optimizer's own: decoupled for adamw, an L2 term in the gradient for the others.

    On a GPU steps are counted in its memory, so that they can be captured (`capturable`; SGD counts none).
    """
    return OPTIMIZERS[config.optimizer](model.parameters(), config, device)
