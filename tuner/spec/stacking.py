"""Which trials can be trained together as one network, a *stack*, and by which engine a study is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from tuner.spec.config import TrialConfig

# Knobs that the layers and optimizers of stacks know. Those that members of a stack must share are its shape; the
# others each member has for itself. A configuration that sets any further knob is trained singly.
_SHAPE: Mapping[str, frozenset[str]] = {
    "cnn": frozenset({"layers", "channels", "kernel", "pooling", "batch_norm", "dense_units", "activation"}),
    "mlp": frozenset({"layers", "units", "activation"}),
    "training": frozenset({"epochs", "batch_size", "optimizer", "seed", "deterministic", "engine", "precision"}),
}
_OWN: Mapping[str, frozenset[str]] = {
    "cnn": frozenset({"dropout"}),
    "mlp": frozenset({"dropout"}),
    "training": frozenset({"learning_rate", "momentum", "weight_decay"}),
}
_OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How a study's trials are trained: decided once, since engines round differently, and stored with it."""

    name: Literal["single", "stacks"]
    members: int = 1  # at most so many trials in a stack; it changes how fast they train, and not what comes of it.
    # 0, of an engine that was measured: no stack can be built

    def __str__(self) -> str:
        return "single" if self.name == "single" else f"stacks of up to {self.members}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Trials that would train together if they were stacked."""

    config: TrialConfig  # of one of them
    trials: int


def with_engine(config: TrialConfig, name: Literal["single", "stacks"]) -> TrialConfig:
    """The configuration with its engine resolved."""
    return config.model_copy(update={"training": config.training.model_copy(update={"engine": name})})


def shape_of(config: TrialConfig) -> str | None:
    """What members of a stack have in common; None for a trial that is trained singly."""
    model, training = config.model, config.training
    stackable = (
        training.engine == "stacks"
        and model.family in _SHAPE
        and training.optimizer in _OPTIMIZERS
        and training.precision != "bfloat16"
        and _understood(model, model.family)
        and _understood(training, "training")
    )
    if not stackable:
        return None
    shape = {"model": _part(model, model.family), "training": _part(training, "training")}
    return json.dumps(shape, sort_keys=True)


def _understood(record: BaseModel, kind: str) -> bool:
    known = _SHAPE[kind] | _OWN[kind] | {"family"}
    return all(
        name in known or getattr(record, name) == field.default for name, field in type(record).model_fields.items()
    )


def _part(record: BaseModel, kind: str) -> dict[str, object]:
    return record.model_dump(mode="json", include={"family", *_SHAPE[kind]})
