"""The JSON schema accepts what is right and marks what an editor can know to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tuner.spec.schema import json_schema
from tuner.spec.source import read_source

REPOSITORY = Path(__file__).parents[2]
RIGHT = [Path(__file__).with_name("example.yaml"), *sorted((REPOSITORY / "search_spaces").glob("*.yaml"))]


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("file", RIGHT, ids=lambda file: file.name)
def test_right_files_are_valid(validator, file: Path) -> None:
    assert list(validator.iter_errors(read_source(file).document)) == []


@pytest.mark.parametrize(
    "override",
    [
        "training.epohs=3",
        "training.batch_size=many",
        "training.learning_rate=0",
        "training.learning_rate={low: 1.0e-4}",
        "training.optimizer={choices: [sgdd]}",
        "training.optimizer={low: 1, high: 2}",
        "training.epochs={low: 1, high: 2}",
        "training.batch_size={low: 1, high: 2, each: model.layers}",
        "model.channels={low: 1, high: 2, each: model.blocks}",
        "model.family=rnnn",
        "model={kernel: 3}",
        "data={points: 500}",
        "search.pruner=medain",
        "budget.trials=0",
        "study=a b",
    ],
)
def test_wrong_files_are_not(validator, override: str) -> None:
    document = read_source(RIGHT[0], [override]).document
    assert list(validator.iter_errors(document))


@pytest.mark.parametrize(
    "override",
    [
        "search.pruner=median",
        "model.channels={low: 1, high: 2, each: model.layers}",
        "model.channels=[8, 16]",
        "training.momentum=[{when: {training.optimizer: [sgd]}, value: 0.5},"
        " {when: {training.optimizer: adam}, low: 0, high: 0.5}]",
    ],
)
def test_all_forms_of_a_knob_are_known(validator, override: str) -> None:
    assert list(validator.iter_errors(read_source(RIGHT[0], [override]).document)) == []


def test_every_knob_is_described_where_its_declaration_is() -> None:
    definitions = json_schema()["$defs"]
    momentum = definitions["TrainingConfig"]["properties"]["momentum"]
    assert momentum["description"] == "sgd and rmsprop only"
    assert momentum["default"] == 0.0
    assert definitions["TrainingConfig_learning_rate_range"]["properties"]["low"]["exclusiveMinimum"] == 0.0
