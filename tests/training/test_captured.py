"""Steps as a GPU takes them, on a CPU: batches gathered by a cursor, and a step that is recorded and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import CPU, Run, same
from tuner.spec.config import TrialConfig
from tuner.training import captured, checkpoint, stack, state
from tuner.training.captured import EAGER_STEPS, Captured, Eager, Replay
from tuner.training.lanes import train
from tuner.training.progress import NoProgress

MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "single adamw": ({"family": "cnn", "channels": 6, "dropout": 0.3}, {"engine": "single"}),
    "single sgd": ({"family": "rnn", "units": 5}, {"engine": "single", "optimizer": "sgd", "momentum": 0.9}),
    "bfloat16": ({"family": "mlp", "units": 7}, {"engine": "single", "precision": "bfloat16"}),
    "stack adamw": ({"family": "cnn", "channels": 6, "dropout": 0.3}, {"engine": "stacks"}),
    "stack adam": ({"family": "mlp", "units": 7}, {"engine": "stacks", "optimizer": "adam"}),
    "stack sgd": ({"family": "mlp", "units": 7}, {"engine": "stacks", "optimizer": "sgd", "momentum": 0.9}),
}


class Recorder:
    """Records a step as what it is."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, step: Callable[[], None], generators: Sequence[torch.Generator]) -> Replay:
        self.recorded += 1
        assert generators

        def replay() -> None:
            self.replayed += 1
            step()

        return replay


@pytest.fixture
def curves(
    trial_config: Callable[..., TrialConfig], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Callable[[], Any]], list[Any]]:
    """All that comes of two trials whose networks take their steps like this."""

    def go(name: str, steps: Callable[[], Any]) -> list[Any]:
        for module in (state, stack):
            monkeypatch.setattr(module, "steps_on", lambda _: steps())
        model, training = MODELS[name]
        config = trial_config(model, epochs=5, **training)
        runs = [Run(config=config, folder=tmp_path / steps.__name__ / str(number), number=number) for number in (0, 1)]
        train(runs, lambda _: images, device=CPU, joining=list, progress=NoProgress())
        kept = [checkpoint.load(run.checkpoints[-1]) for run in runs]
        return [[run.curve for run in runs], [{**vars(one), "best": vars(one.best), "seconds": 0} for one in kept]]

    return go


@pytest.mark.parametrize("name", MODELS)
def test_captured_steps_are_the_eager_ones_to_the_bit(name: str, curves: Any) -> None:
    recorder = Recorder()

    def replayed() -> Captured:
        return Captured(recorder)

    assert same(curves(name, replayed), curves(name, Eager))
    networks = 1 if "stack" in name else 2
    # 5 epochs of 6 whole batches of 16 and one of the last 4
    assert recorder.recorded == 2 * networks
    assert recorder.replayed == networks * (5 * 7 - 2 * EAGER_STEPS)


def test_what_cannot_be_captured_stays_eager_which_is_said_once(curves: Any, caplog: pytest.LogCaptureFixture) -> None:
    captured._say_once.cache_clear()

    def refuse(*_: Any) -> Replay:
        raise RuntimeError("operation not permitted when stream is capturing")

    def refused() -> Captured:
        return Captured(refuse)

    with caplog.at_level(logging.WARNING):
        trained = curves("single adamw", refused)
    assert same(trained, curves("single adamw", Eager))
    assert len(caplog.messages) == 1
    assert "not permitted when stream is capturing" in caplog.text
