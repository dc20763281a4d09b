from __future__ import annotations

from tuner.spec.diff import difference
from tuner.spec.study import StudySpec


def test_a_difference_names_each_key_once(read) -> None:
    text = "study: s\ndata: {name: digits}\nmodel: {family: cnn, layers: {low: 1, high: 3}}\nbudget: {trials: 9}\n"
    old: StudySpec = read(text)
    new: StudySpec = read(
        text,
        "training.epochs=30",
        "model.layers.high=4",
        "model.kernel={choices: [3, 5]}",
        "training.momentum={value: 0.9, when: {training.optimizer: adamw}}",
        "budget={seconds: 60}",
    )
    assert difference(old.document, new.document) == [
        "model.layers.high: 3 -> 4",
        "model.kernel: 3 -> {choices: [3, 5]}",
        "training.epochs: 10 -> 30",
        "training.momentum: 0.0 -> {when: {training.optimizer: [adamw]}, value: 0.9}",
        "budget.trials: 9 -> nothing",
        "budget.seconds: nothing -> 60.0",
    ]
    assert difference(old.document, old.document) == []


def test_a_difference_of_families_shows_what_came_and_went() -> None:
    assert difference({"model": {"family": "cnn", "kernel": 3}}, {"model": {"family": "rnn", "cell": "gru"}}) == [
        "model.family: cnn -> rnn",
        "model.cell: nothing -> gru",
        "model.kernel: 3 -> nothing",
    ]
