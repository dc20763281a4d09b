"""A knob is one line in `config.py`: all forms of searching it follow from its type."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from tuner.spec.config import Fixed, PerLayer, Record
from tuner.spec.knobs import searchable


class New(Record):
    layers: int = 2
    clip: float | None = Field(None, gt=0.0, description="largest gradient")
    mode: Literal["a", "b"] = "a"
    switch: bool = False
    width: Annotated[Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...], PerLayer()] = 8
    frame: Annotated[int, Fixed("it is the frame")] = Field(3, ge=1)


Knobs = searchable(New, "model")


def said(name: str, json: str) -> Any:
    return getattr(Knobs.model_validate_json(f'{{"{name}": {json}}}'), name)


@pytest.mark.parametrize(
    ("name", "json"),
    [
        ("clip", "0.5"),
        ("clip", "null"),
        ("clip", '{"low": 1, "high": 2, "log": true, "points": 3}'),
        ("clip", '{"choices": [null, 1]}'),
        ("clip", '[{"value": null, "when": {"model.mode": "a"}}, {"low": 1, "high": 2, "when": {"model.mode": "b"}}]'),
        ("mode", '{"choices": ["a"], "when": {"model.switch": [true]}}'),
        ("switch", '{"choices": [true, false]}'),
        ("width", "[1, 2]"),
        ("width", '{"low": 1, "high": 9, "step": 2, "each": "model.layers"}'),
        ("width", '{"value": [1, 2], "when": {"model.layers": 2}}'),
        ("frame", "4"),
    ],
)
def test_a_declared_knob_takes_all_forms_that_fit_its_type(name: str, json: str) -> None:
    document = Knobs.model_validate_json(f'{{"{name}": {json}}}').model_dump_json()
    assert Knobs.model_validate_json(document).model_dump_json() == document


@pytest.mark.parametrize(
    ("name", "json"),
    [
        ("clip", "0"),
        ("clip", '"1"'),
        ("clip", '{"low": 0, "high": 1}'),
        ("clip", '{"choices": [1, -1]}'),
        ("clip", '{"low": 1, "high": 2, "each": "model.layers"}'),
        ("clip", "[1, 2]"),
        ("mode", '{"low": 1, "high": 2}'),
        ("switch", "1"),
        ("width", "[1, 0]"),
        ("width", '{"low": 1.5, "high": 2}'),
        ("width", '{"low": 1, "high": 2, "each": "training.layers"}'),
        ("frame", '{"choices": [1]}'),
        ("frame", "0"),
    ],
)
def test_it_refuses_what_does_not_fit(name: str, json: str) -> None:
    with pytest.raises(ValidationError):
        said(name, json)


def test_what_is_not_mentioned_keeps_its_default() -> None:
    assert Knobs.model_validate_json("{}").model_dump() == New().model_dump()
