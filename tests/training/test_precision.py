from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import CPU, same
from tuner.states import Outcome
from tuner.training import checkpoint, loop
from tuner.training.course import Member
from tuner.training.progress import Stop
from tuner.training.state import State

MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cnn": ("images", {"family": "cnn", "channels": 16, "dropout": 0.2}, "accuracy"),
    "lstm": ("windows", {"family": "rnn", "units": 16, "relative_to_last": True}, "mse"),
    "mlp": ("points", {"family": "mlp", "units": 32}, "accuracy"),
}


def config_of(trial_config: Any, name: str, precision: str, **training: Any) -> Any:
    _, model, metric = MODELS[name]
    return trial_config(model, {"metric": metric}, **{"epochs": 12, "precision": precision, **training})


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_learns_what_float32_does(
    name: str, request: Any, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    data = request.getfixturevalue(MODELS[name][0])
    exact, rounded = (
        run(config_of(trial_config, name, precision), data, tmp_path / precision) for precision in ("auto", "bfloat16")
    )
    assert rounded.result.outcome is Outcome.COMPLETE
    best = max if MODELS[name][2] == "accuracy" else min
    values = [best(metrics[MODELS[name][2]] for metrics in each.curve) for each in (exact, rounded)]
    assert values[1] == pytest.approx(values[0], abs=0.06)
    assert exact.curve != rounded.curve


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_kept_in_float32_and_computed_with_in_bfloat16(
    name: str, request: Any, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    data = request.getfixturevalue(MODELS[name][0])
    config = config_of(trial_config, name, "bfloat16", epochs=2)
    kept = checkpoint.load(run(config, data, tmp_path).checkpoints[-1])
    floats = [value for value in (*kept.model.values(), *kept.best.model.values()) if value.is_floating_point()]
    assert {value.dtype for value in floats} == {torch.float32}
    assert any(not torch.equal(value, value.bfloat16().float()) for value in floats), "they have more digits"
    state = State(Member(config=config, seed=0, number=0), data, CPU)
    assert torch.bfloat16 in {parameter.dtype for parameter in state.computing.parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_resumed_equals_uninterrupted_in_bfloat16(
    name: str, request: Any, trial_config: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    data = request.getfixturevalue(MODELS[name][0])
    config = config_of(trial_config, name, "bfloat16", epochs=4)
    whole = run(config, data, tmp_path / "whole")
    first = run(config, data, tmp_path / "first", stop=lambda: Stop.AFTER_EPOCH)
    second = run(config, data, tmp_path / "second", resume=first.checkpoints[-1])
    assert first.curve + second.curve == whole.curve
    ends = [checkpoint.load(each.checkpoints[-1]) for each in (second, whole)]
    assert same(dict(ends[0].model), dict(ends[1].model))
