"""What a study file means: its space, its trials, and the document that stands for it in the database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.errors import InvalidSpec
from tuner.spec.grid import Grid
from tuner.spec.search import MedianPruner, PatientPruner
from tuner.spec.space import Choices, Condition, FloatRange, IntRange, Space
from tuner.spec.study import StudySpec, spec_from_document

EXAMPLE = Path(__file__).with_name("example.yaml").read_text()
MLP = "study: s\ndata: {name: spiral}\nbudget: {trials: 9}\nmodel:\n  family: mlp\n"


def names(space: Space) -> list[str]:
    return [parameter.name for parameter in space.parameters]


def first(space: Space, **chosen: object) -> dict[str, object]:
    """The point that takes what is chosen, and else the first value."""

    def choose(parameter):
        match parameter.domain:
            case Choices(choices=choices):
                default = choices[0]
            case IntRange(low=default) | FloatRange(low=default):
                pass
        return chosen.get(parameter.name, default)

    return space.point(choose)


def test_the_pinned_example_is_read_as_designed(read) -> None:
    spec = read(EXAMPLE)
    assert spec.name == "digits-cnn"
    assert {parameter.name: parameter.domain for parameter in spec.space.parameters} == {
        "layers": IntRange(low=1, high=3),
        "channels": Choices(choices=(16, 32, 64)),
        "dropout": FloatRange(low=0.0, high=0.5, step=0.25),
        "batch_size": Choices(choices=(32, 64, 128)),
        "optimizer": Choices(choices=("adamw", "sgd")),
        "learning_rate": FloatRange(low=1e-4, high=1e-1, log=True, points=4),
        "weight_decay": FloatRange(low=1e-6, high=1e-2, log=True, points=2),
    }
    assert (spec.epochs, spec.budget.trials, spec.search.method) == (20, 40, "tpe")
    assert spec.search.pruner == MedianPruner(min_epochs=3)
    assert (spec.objective.metric, spec.objective.direction) == ("accuracy", "maximize")


def test_a_condition_decides_whether_a_knob_has_its_value_or_its_default(read) -> None:
    space = read(EXAMPLE).space
    assert space.resolve(first(space, optimizer="sgd")).training.momentum == 0.9
    assert space.resolve(first(space, optimizer="adamw")).training.momentum == 0.0


def test_a_knob_that_is_not_mentioned_has_its_default_and_decides_conditions(read) -> None:
    space = read(MLP + "  dropout: {low: 0, high: 0.5, when: {model.activation: relu}}\n").space
    assert names(space) == ["dropout"]
    assert space.parameters[0].when == ()  # the default activation is relu: it always holds
    assert space.resolve({"dropout": 0.25}).model.activation == "relu"
    assert names(read(MLP + "  dropout: {low: 0, high: 0.5, when: {model.activation: tanh}}\n").space) == []


def test_cases_are_recorded_under_the_values_of_their_conditions(read) -> None:
    space = read(
        EXAMPLE,
        "training.learning_rate=[{when: {training.optimizer: sgd}, low: 1.0e-3, high: 1.0, log: true},"
        " {when: {training.optimizer: adamw}, low: 1.0e-5, high: 1.0e-2, log: true}]",
    ).space
    assert [name for name in names(space) if name.startswith("learning")] == [
        "learning_rate[sgd]",
        "learning_rate[adamw]",
    ]
    point = first(space, optimizer="sgd")
    assert "learning_rate[adamw]" not in point
    assert space.resolve(point).training.learning_rate == 1e-3
    assert space.resolve(first(space, optimizer="adamw")).training.learning_rate == 1e-5


def test_a_case_of_several_conditions_is_named_after_all_their_values(read) -> None:
    cases = (
        "[{when: {training.optimizer: [sgd, rmsprop], model.batch_norm: true}, low: 1, high: 2},"
        " {when: {model.batch_norm: false}, low: 3, high: 4}]"
    )
    spec = read(
        EXAMPLE,
        "training.optimizer={choices: [sgd, rmsprop, adam]}",
        "model.batch_norm={choices: [true, false]}",
        f"training.learning_rate={cases}",
    )
    assert {name for name in names(spec.space) if "rate" in name} == {
        "learning_rate[true,sgd,rmsprop]",
        "learning_rate[false]",
    }


def test_cases_of_other_knobs_with_the_same_values_have_names_of_their_own(read) -> None:
    space = read(
        EXAMPLE,
        "model.dense_units={choices: [1, 2]}",
        "training.batch_size={choices: [1, 2]}",
        "model.dropout=[{when: {model.dense_units: 1, model.layers: 2}, low: 0, high: 0.1},"
        " {when: {model.layers: 1, training.batch_size: 2}, low: 0, high: 0.5}]",
    ).space
    assert [name for name in names(space) if "dropout" in name] == [
        "dropout[model.dense_units=1,model.layers=2]",
        "dropout[model.layers=1,training.batch_size=2]",
    ]


def test_each_layer_is_searched_where_there_is_one(read) -> None:
    space = read(
        MLP + "  layers: {low: 1, high: 3}\n  units: {low: 16, high: 256, log: true, each: model.layers}\n"
    ).space
    assert names(space) == ["layers", "units[0]", "units[1]", "units[2]"]
    assert [parameter.when for parameter in space.parameters] == [
        (),
        (),
        (Condition(path="model.layers", values=(2, 3)),),
        (Condition(path="model.layers", values=(3,)),),
    ]
    point = first(space, **{"layers": 2, "units[1]": 99, "units[2]": 7})
    assert point == {"layers": 2, "units[0]": 16, "units[1]": 99}
    assert space.resolve(point).model.units == (16, 99)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [("2", ["units[0]", "units[1]"]), ("{choices: [0, 2]}", ["layers", "units[0]", "units[1]"]), ("0", [])],
)
def test_layers_may_be_given_in_any_way(read, layers: str, expected: list[str]) -> None:
    assert (
        names(read(MLP + f"  layers: {layers}\n  units: {{low: 1, high: 9, each: model.layers}}\n").space) == expected
    )


def test_cases_may_be_searched_for_each_layer(read) -> None:
    space = read(
        MLP
        + "  layers: 2\n  activation: {choices: [relu, tanh]}\n"
        + "  units: [{when: {model.activation: relu}, low: 8, high: 9, each: model.layers},"
        + " {when: {model.activation: tanh}, value: [3, 4]}]\n"
    ).space
    assert names(space) == ["activation", "units[relu][0]", "units[relu][1]"]
    assert space.resolve(first(space, activation="relu")).model.units == (8, 8)
    assert space.resolve({"activation": "tanh"}).model.units == (3, 4)


def test_parameters_stand_behind_those_that_their_conditions_name(read) -> None:
    space = read(
        MLP
        + "  layers: {low: 1, high: 2, when: {training.optimizer: sgd}}\n"
        + "training: {optimizer: {choices: [sgd, adam], when: {model.activation: relu}}}\n",
        "model.activation={choices: [relu, tanh]}",
    ).space
    assert names(space) == ["activation", "optimizer", "layers"]
    assert first(space, activation="tanh") == {"activation": "tanh"}


def test_a_knob_fixed_from_outside_takes_its_cases_with_it(read) -> None:
    space = read(EXAMPLE, "training.optimizer=adamw").space
    assert "optimizer" not in names(space)
    assert not any(entry.when for entry in space.entries)
    assert space.resolve(first(space)).training.momentum == 0.0


def test_a_value_for_each_layer_may_be_fixed(read) -> None:
    space = read(MLP + "  layers: 3\n  units: [32, 16, 8]\n").space
    assert space.resolve({}).model.units == (32, 16, 8)


@pytest.mark.parametrize(
    ("layers", "units"),
    [
        ("{value: 3, when: {model.activation: relu}}", "{value: [8, 8, 8], when: {model.activation: relu}}"),
        (
            "{value: 3, when: {model.activation: relu}}",  # elsewhere there are 2
            "[{value: [8, 8, 8], when: {model.activation: relu}}, {value: [8, 8], when: {model.activation: tanh}}]",
        ),
        ("[{value: 3, when: {model.activation: relu}}, {choices: [3], when: {model.activation: tanh}}]", "[8, 8, 8]"),
        ("{value: 3, when: {training.optimizer: adamw}}", "[8, 8, 8]"),  # which it is by default
        ("{low: 1, high: 3}", "{value: [8, 8, 8], when: {model.layers: 3}}"),
        (
            "[{value: 3, when: {training.batch_size: [8, 9]}}, {low: 1, high: 2, when: {training.batch_size: 64}}]",
            "{value: [8, 8, 8], when: {training.batch_size: 9}}",
        ),
    ],
)
def test_a_value_for_each_layer_may_hold_where_the_number_of_layers_fits(read, layers: str, units: str) -> None:
    space = read(
        MLP + f"  activation: {{choices: [relu, tanh]}}\n  layers: {layers}\n  units: {units}\n",
        "training.batch_size={choices: [8, 9, 64]}",
    ).space
    grid = Grid(space)
    for index in range(grid.size):
        model = space.resolve(grid.point(index)).model
        assert isinstance(model.units, int) or len(model.units) == model.layers


def test_integers_may_stand_where_numbers_are_wanted(read) -> None:
    assert read(EXAMPLE, "training.learning_rate={low: 1, high: 2}") == read(
        EXAMPLE, "training.learning_rate={low: 1.0, high: 2.0}"
    )


@pytest.mark.parametrize(("data", "metric"), [("digits", "accuracy"), ("spiral", "accuracy"), ("etth1", "mse")])
def test_the_metric_follows_the_task_where_none_is_given(read, data: str, metric: str) -> None:
    for objective in ("", "objective: {value: last}\n"):
        spec = read(f"study: s\ndata: {{name: {data}}}\nmodel: {{family: mlp}}\nbudget: {{trials: 1}}\n{objective}")
        assert spec.objective.metric == metric
        assert spec.document["objective"]["metric"] == metric
        assert spec.space.resolve({}).objective == spec.objective


def test_a_pruner_may_be_named_alone(read) -> None:
    assert read(EXAMPLE, "search.pruner=median").search.pruner == MedianPruner()
    assert read(EXAMPLE, "search.pruner={name: patient, pruner: median}").search.pruner == PatientPruner(
        pruner=MedianPruner()
    )


def test_overrides_replace_what_stands_in_the_file(read) -> None:
    spec = read(EXAMPLE, "training.epochs=2", "model.layers={low: 1, high: 2}", "search.seed=7", "budget.seconds=1e2")
    assert (spec.epochs, spec.search.seed, spec.budget.seconds, spec.budget.trials) == (2, 7, 100.0, 40)
    assert spec.space.parameters[0].domain == IntRange(low=1, high=2)
    assert read(EXAMPLE, "model.layers.high=2", "model.layers.low=2").space.parameters[0].domain == IntRange(
        low=2, high=2
    )
    assert read(EXAMPLE, name="other").name == "other"


def test_the_document_holds_the_whole_study(read) -> None:
    spec = read(
        MLP + "  layers: {low: 1, high: 3}\n  units: {choices: [8, 16], each: model.layers}\n"
        "training: {momentum: [{when: {model.layers: [1, 2]}, value: 0.9},"
        " {when: {model.layers: 3}, low: 0, high: 0.5}]}\n"
        "search: {pruner: hyperband}\n"
    )
    stored = json.loads(json.dumps(spec.document))
    assert spec_from_document("s", stored) == spec
    assert spec_from_document("s", stored).digest() == spec.digest()
    assert spec_from_document("t", stored).name == "t"
    assert stored["training"]["learning_rate"] == 0.001  # defaults are filled in


def test_a_grid_without_a_budget_is_its_own(read) -> None:
    grid = EXAMPLE.replace("tpe", "grid").replace("budget: {trials: 40}", "")
    assert read(grid).budget.trials == read(grid).document["budget"]["trials"] == 3 * 3 * 3 * 3 * 2 * 4 * 2
    assert read(grid, "budget.trials=40").budget.trials == 40
    assert read(grid, "budget.trials=9000").budget.trials == 1296
    assert spec_from_document("digits-cnn", read(grid).document) == read(grid)


def test_the_digest_is_the_same_for_the_same_study(read) -> None:
    digest = read(EXAMPLE).digest()
    sections = EXAMPLE.split("\nmodel:")[0], "\nmodel:" + EXAMPLE.split("\nmodel:")[1]
    same: list[StudySpec] = [
        read(
            "# a comment\n"
            + EXAMPLE.replace("  channels", "\n  channels").replace("{low: 1, high: 3}", "{high: 3, low: 1}")
        ),
        read(sections[1] + "\n" + sections[0]),
        read(EXAMPLE, "budget.trials=99", "budget.seconds=5"),
        read(EXAMPLE, name="other"),
        read(EXAMPLE, "model.kernel=3"),  # its default
        read(EXAMPLE, "model.dropout.log=false"),
        read(EXAMPLE, "training.momentum.when={training.optimizer: [sgd]}"),
    ]
    assert {spec.digest() for spec in same} == {digest}


@pytest.mark.parametrize(
    "override",
    [
        "model.layers.high=4",
        "model.kernel=5",
        "data.split.seed=1",
        "training.epochs=21",
        "training.momentum.value=0.8",
        "training.learning_rate.points=5",
        "training.batch_size={choices: [64, 32, 128]}",
        "objective.value=last",
        "search.seed=1",
        "search.method=random",
        "search.pruner.min_epochs=4",
    ],
)
def test_the_digest_is_another_for_another_study(read, override: str) -> None:
    assert read(EXAMPLE, override).digest() != read(EXAMPLE).digest()


def test_the_order_of_keys_changes_nothing_that_a_sampler_sees(read) -> None:
    lines = EXAMPLE.splitlines()
    reordered = [*lines[:2], *lines[7:14], *lines[2:7], *lines[14:]]
    assert lines != reordered
    assert read("\n".join(reordered)).space == read(EXAMPLE).space


def test_a_study_is_searched_in_other_ways_for_a_comparison(read) -> None:
    spec = read(EXAMPLE)
    other = spec.with_search(name="digits-cnn.grid.1", method="grid", seed=1)
    assert (other.name, other.search.method, other.search.seed) == ("digits-cnn.grid.1", "grid", 1)
    assert other.search.pruner == spec.search.pruner
    assert (other.space, other.budget, other.data) == (spec.space, spec.budget, spec.data)
    assert other.digest() != spec.digest()


def test_a_comparison_with_grid_needs_points(read) -> None:
    spec = read(EXAMPLE, "training.learning_rate={low: 1.0e-4, high: 1.0e-1, log: true}")
    with pytest.raises(InvalidSpec) as refusal:
        spec.with_search(name="g", method="grid", seed=0)
    assert refusal.value.faults == (
        "g: training.learning_rate: a grid needs a finite list here; add points (points: 4) or step, or use choices",
    )


def test_a_document_that_this_version_does_not_understand_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"^old: model\.kernels: unknown key; did you mean model\.kernel\?$"):
        spec_from_document(
            "old",
            {"data": {"name": "digits"}, "model": {"family": "cnn", "kernels": 3}, "budget": {"trials": 1}},
        )
