from __future__ import annotations

from typing import Any

import pytest

from tuner.spec.config import TrialConfig
from tuner.spec.stacking import shape_of


def config(model: dict[str, Any], **training: Any) -> TrialConfig:
    document = {
        "data": {"name": "digits"},
        "model": model,
        "training": {"engine": "stacks", **training},
        "objective": {"metric": "accuracy"},
    }
    return TrialConfig.model_validate(document)


CNN = {"family": "cnn", "channels": 16}


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({**CNN, "dropout": 0.3}, {}),
        (CNN, {"learning_rate": 0.5}),
        (CNN, {"weight_decay": 0.5}),
        (CNN, {"optimizer": "sgd", "momentum": 0.9}),
    ],
)
def test_members_may_differ_in_what_changes_no_shape(model: Any, training: Any) -> None:
    plain = config(CNN, **{key: value for key, value in training.items() if key == "optimizer"})
    assert shape_of(config(model, **training)) == shape_of(plain) is not None


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({**CNN, "channels": 8}, {}),
        ({**CNN, "activation": "gelu"}, {}),
        (CNN, {"batch_size": 8}),
        (CNN, {"optimizer": "sgd"}),
        (CNN, {"epochs": 11}),
    ],
)
def test_members_share_all_else(model: Any, training: Any) -> None:
    assert shape_of(config(model, **training)) not in (shape_of(config(CNN)), None)


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({"family": "rnn"}, {}),
        (CNN, {"optimizer": "rmsprop"}),
        (CNN, {"precision": "bfloat16"}),
        (CNN, {"engine": "single"}),
        (CNN, {"engine": "auto"}),
    ],
)
def test_what_no_stack_understands_is_trained_singly(model: Any, training: Any) -> None:
    assert shape_of(config(model, **training)) is None
