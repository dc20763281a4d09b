from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.training.course import Member
from tuner.training.evaluation import finish
from tuner.training.randomness import Randomness
from tuner.training.state import State


@pytest.fixture
def state(images: Path, trial_config: Any) -> State:
    config = trial_config({"family": "cnn", "channels": 4, "dropout": 0.5})
    return State(Member(config=config, seed=0, number=0), images, torch.device("cpu"))


def draws(randomness: Randomness, *where: Any) -> tuple[int, ...]:
    return tuple(torch.randint(10**9, (3,), generator=randomness.generator(*where)).tolist())


def test_every_purpose_epoch_trial_and_seed_has_draws_of_its_own() -> None:
    one = Randomness(seed=0, number=1)
    places = [
        draws(one, "weights"),
        draws(one, "order", 1),
        draws(one, "order", 2),
        draws(one, "dropout", 1),
        draws(Randomness(seed=0, number=2), "order", 1),
        draws(Randomness(seed=1, number=1), "order", 1),
        draws(Randomness(seed=0, number=None), "order", 1),
    ]
    assert len(set(places)) == len(places)
    assert draws(one, "order", 1) == draws(Randomness(seed=0, number=1), "order", 1)


def test_each_epoch_sees_all_examples_in_an_order_of_its_own(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def step(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(inputs.sum((1, 2, 3)))
        return torch.zeros(())

    def order(epoch: int) -> torch.Tensor:
        seen.clear()
        state.course.epoch = epoch - 1
        finish(state.train())
        return torch.cat(seen)

    monkeypatch.setattr(state, "step", step)
    first, second, again = order(1), order(2), order(1)
    assert len(first) == 100
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_each_epoch_has_noise_of_its_own(state: State) -> None:
    inputs = torch.ones(16, 1, 8, 8)

    def outputs(epoch: int) -> torch.Tensor:
        state.epoch = epoch - 1
        state.begin_pass()
        return state.model(inputs)

    first, second, again = outputs(1), outputs(2), outputs(1)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
