"""The ends of a search space: how large its models are, which cannot be built, what is tried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuner.spec.config import CnnConfig, RnnConfig
from tuner.spec.space import Choices, Condition, Constant, Entry, FloatRange, IntRange, Parameter, Space
from tuner.training import data
from tuner.training.corners import find_corners
from tuner.training.models import parameter_count

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
    found = find_corners(space, info)
    counts = [
        parameter_count(CnnConfig(layers=layers, channels=channels), info) for layers in (1, 3) for channels in (16, 64)
    ]
    assert (found.fewest_parameters, found.most_parameters, found.infeasible) == (min(counts), max(counts), ())


def test_infeasible_corners_are_named_once_a_reason(images: Path) -> None:
    space = Space(
        entries=(
            *FRAME,
            Constant(path="model.family", value="cnn"),
            knob("layers", IntRange(low=2, high=5)),
            knob("channels", IntRange(low=4, high=8)),
        )
    )
    found = find_corners(space, data.info(images))
    assert found.fewest_parameters == parameter_count(CnnConfig(layers=2, channels=4), data.info(images))
    assert len(found.infeasible) == 1
    assert found.infeasible[0].startswith("layers: 5, channels: 4: cnn: a map of 1 x 1 is left after 3 of 5 layers")


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
    found = find_corners(space, info)
    assert found.fewest_parameters == parameter_count(RnnConfig(cell="gru", layers=2, units=(3, 5)), info)
    assert found.most_parameters == parameter_count(RnnConfig(layers=2, units=(9, 7), bidirectional=True), info)


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
    found = find_corners(Space(entries=entries), info)
    # Pooling makes the deepest the smallest: the map before the dense layer is 1 x 1 then.
    smallest = CnnConfig(layers=3, channels=1, kernel=1, dense_units=1, batch_norm=False)
    largest = CnnConfig(layers=1, channels=3, kernel=3, dense_units=3, pooling="none")
    deep = CnnConfig(layers=3, channels=3, kernel=3, dense_units=3, pooling="none")
    assert found.fewest_parameters == parameter_count(smallest, info)
    assert found.most_parameters == max(parameter_count(largest, info), parameter_count(deep, info))


def test_a_space_without_knobs_of_the_model(images: Path) -> None:
    space = Space(entries=(*FRAME, Constant(path="model.family", value="cnn"), Constant(path="model.layers", value=9)))
    found = find_corners(space, data.info(images))
    assert (found.fewest_parameters, found.most_parameters) == (None, None)
    assert found.infeasible[0].startswith("every model: cnn: a map of 1 x 1")


def test_large_is_what_computes_much(images: Path) -> None:
    """Of these models the deep ones compute more, and have fewer parameters, since pooling spares a dense layer."""
    entries = (
        *FRAME,
        Constant(path="model.family", value="cnn"),
        knob("layers", IntRange(low=1, high=3)),
        knob("channels", IntRange(low=4, high=16)),
        Constant(path="model.dense_units", value=32),
        knob("dropout", FloatRange(low=0.0, high=0.5)),
        Parameter(path="training.batch_size", name="batch_size", domain=Choices(choices=(32, 8, 16))),
    )
    corners = find_corners(Space(entries=entries), data.info(images)).corners
    small, large = {"layers": 1, "channels": 4, "dropout": 0.0}, {"layers": 3, "channels": 16, "dropout": 0.5}
    assert [(corner.model, corner.knobs, corner.config.training.batch_size) for corner in corners] == [
        ("smallest", small, 8),
        ("smallest", small, 32),
        ("largest", large, 8),
        ("largest", large, 32),
    ]


def test_corners_that_are_the_same_come_once(images: Path) -> None:
    entries = (*FRAME, Constant(path="model.family", value="cnn"))
    (corner,) = find_corners(Space(entries=entries), data.info(images)).corners
    assert corner.knobs == {}


def test_corners_are_trained_by_the_optimizer_that_keeps_most(images: Path) -> None:
    sgd = Condition(path="training.optimizer", values=("sgd",))
    entries = (
        *FRAME,
        Constant(path="model.family", value="cnn"),
        Parameter(path="training.optimizer", name="optimizer", domain=Choices(choices=("sgd", "adamw", "rmsprop"))),
        Parameter(path="training.momentum", name="momentum", domain=FloatRange(low=0.0, high=0.9), when=(sgd,)),
    )
    (corner,) = find_corners(Space(entries=entries), data.info(images)).corners
    assert corner.config.training.optimizer == "adamw"
