from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tuner.spec.config import TrainingConfig
from tuner.training.optimizers import OPTIMIZERS, build_optimizer

REFERENCES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters, c: torch.optim.SGD(
        parameters, lr=c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay, foreach=False
    ),
    "adam": lambda parameters, c: torch.optim.Adam(
        parameters, lr=c.learning_rate, weight_decay=c.weight_decay, foreach=False
    ),
    "adamw": lambda parameters, c: torch.optim.AdamW(
        parameters, lr=c.learning_rate, weight_decay=c.weight_decay, foreach=False
    ),
    "rmsprop": lambda parameters, c: torch.optim.RMSprop(
        parameters, lr=c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay, foreach=False
    ),
}


def trained(make: Callable[[nn.Module], torch.optim.Optimizer]) -> nn.Module:
    """A small network after ten steps that do not depend on the global generator."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
    optimizer = make(model)
    for _ in range(10):
        inputs = torch.randn(16, 4, generator=generator)
        optimizer.zero_grad()
        (model(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_updates_are_those_of_torchs_plain_implementation(name: str, settings: dict[str, Any]) -> None:
    config = TrainingConfig(optimizer=name, learning_rate=0.01, **settings)
    ours = trained(lambda model: build_optimizer(model, config, torch.device("cpu")))
    theirs = trained(lambda model: REFERENCES[name](model.parameters(), config))
    for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)


def test_weight_decay_is_decoupled_in_adamw_alone() -> None:
    def weights(name: str, decay: float) -> torch.Tensor:
        config = TrainingConfig(optimizer=name, learning_rate=0.01, weight_decay=decay)
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 2.0)
        optimizer = build_optimizer(model, config, torch.device("cpu"))
        model.weight.grad = torch.zeros(1, 1)  # nothing but the decay moves the weight
        optimizer.step()
        return model.weight.detach()

    assert weights("adamw", 0.5).item() == pytest.approx(2.0 * (1 - 0.01 * 0.5))
    assert weights("adam", 0.5).item() == pytest.approx(2.0 - 0.01)  # Adam's step, whatever the gradient's size
    assert weights("sgd", 0.5).item() == pytest.approx(2.0 - 0.01 * 0.5 * 2.0)


def test_every_optimizer_that_a_file_may_name_exists() -> None:
    from typing import get_args

    assert set(OPTIMIZERS) == set(get_args(TrainingConfig.model_fields["optimizer"].annotation))
