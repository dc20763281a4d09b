from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.spec.config import CnnConfig, RnnConfig
from tuner.spec.space import Choices, Condition, Constant, Entry, FloatRange, IntRange, Parameter, Space
from tuner.training import data
from tuner.training.models import parameter_count
from tuner.training.preflight import model_sizes, seconds_per_trial

FRAME: tuple[Entry, ...] = (
    Constant(path="data.name", value="digits"),
    Constant(path="objective.metric", value="accuracy"),
    Parameter(path="training.learning_rate", name="learning_rate", domain=FloatRange(low=1e-4, high=0.1, log=True)),
)


def knob(name: str, domain: Any, **more: Any) -> Parameter:
    return Parameter(path=f"model.{name.partition('[')[0]}", name=name, domain=domain, **more)


def test_the_smallest_and_the_largest_model_of_a_space(images: Path) -> None:
    space = Space(
        entries=(
            *FRAME,
            Constant(path="model.family", value="cnn"),
            knob("layers", IntRange(low=1, high=3)),
            knob("channels", Choices(choices=(16, 64, 32))),
            knob("dropout", FloatRange(low=0.0, high=0.5)),
        )
    )
    info = data.info(images)
    sizes = model_sizes(space, info)
    counts = [
        parameter_count(CnnConfig(layers=layers, channels=channels), info) for layers in (1, 3) for channels in (16, 64)
    ]
    assert (sizes.smallest, sizes.largest, sizes.infeasible) == (min(counts), max(counts), ())


def test_infeasible_corners_are_named_once_a_reason(images: Path) -> None:
    space = Space(
        entries=(
            *FRAME,
            Constant(path="model.family", value="cnn"),
            knob("layers", IntRange(low=2, high=5)),
            knob("channels", IntRange(low=4, high=8)),
        )
    )
    sizes = model_sizes(space, data.info(images))
    assert sizes.smallest == parameter_count(CnnConfig(layers=2, channels=4), data.info(images))
    assert len(sizes.infeasible) == 1
    assert sizes.infeasible[0].startswith("layers: 5, channels: 4: cnn: a map of 1 x 1 is left after 3 of 5 layers")


def test_choices_conditions_and_layers(images: Path) -> None:
    lstm = Condition(path="model.cell", values=("lstm",))
    space = Space(
        entries=(
            *FRAME,
            Constant(path="model.family", value="rnn"),
            Constant(path="model.layers", value=2),
            knob("cell", Choices(choices=("gru", "lstm"))),
            knob("bidirectional", Choices(choices=(False, True)), when=(lstm,)),
            knob("units[0]", IntRange(low=3, high=9), layer=0),
            knob("units[1]", IntRange(low=5, high=7), layer=1),
        )
    )
    info = data.info(images)
    sizes = model_sizes(space, info)
    assert sizes.smallest == parameter_count(RnnConfig(cell="gru", layers=2, units=(3, 5)), info)
    assert sizes.largest == parameter_count(RnnConfig(layers=2, units=(9, 7), bidirectional=True), info)


def test_every_corner_is_looked_at(images: Path) -> None:
    kinds = ("relu", "gelu", "silu", "elu", "leaky_relu", "tanh", "sigmoid")
    entries = (
        *FRAME,
        Constant(path="model.family", value="cnn"),
        knob("activation", Choices(choices=kinds)),
        knob("pooling", Choices(choices=("max", "average", "none"))),
        knob("batch_norm", Choices(choices=(False, True))),
        *(knob(name, IntRange(low=1, high=3)) for name in ("layers", "channels", "kernel", "dense_units")),
        knob("dropout", FloatRange(low=0.0, high=0.5)),
    )
    info = data.info(images)
    sizes = model_sizes(Space(entries=entries), info)
    # Pooling makes the deepest the smallest: the map before the dense layer is 1 x 1 then.
    smallest = CnnConfig(layers=3, channels=1, kernel=1, dense_units=1, batch_norm=False)
    largest = CnnConfig(layers=1, channels=3, kernel=3, dense_units=3, pooling="none")
    deep = CnnConfig(layers=3, channels=3, kernel=3, dense_units=3, pooling="none")
    assert sizes.smallest == parameter_count(smallest, info)
    assert sizes.largest == max(parameter_count(largest, info), parameter_count(deep, info))


def test_a_space_without_knobs_of_the_model(images: Path) -> None:
    space = Space(entries=(*FRAME, Constant(path="model.family", value="cnn"), Constant(path="model.layers", value=9)))
    sizes = model_sizes(space, data.info(images))
    assert (sizes.smallest, sizes.largest) == (None, None)
    assert sizes.infeasible[0].startswith("every model: cnn: a map of 1 x 1")


def test_the_time_of_a_trial_follows_the_model(images: Path, trial_config: Any) -> None:
    def seconds(**model: Any) -> float:
        return seconds_per_trial(trial_config({"family": "cnn", **model}), images, torch.device("cpu"))

    small, large = seconds(channels=4), seconds(channels=256, kernel=7)
    assert 0 < small < large


def test_the_time_of_a_model_that_cannot_be(images: Path, trial_config: Any) -> None:
    from tuner.training.errors import InfeasibleModel

    with pytest.raises(InfeasibleModel):
        seconds_per_trial(trial_config({"family": "cnn", "layers": 9}), images, torch.device("cpu"))
