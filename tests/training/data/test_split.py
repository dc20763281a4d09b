from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from tuner.errors import DataError
from tuner.training.data.split import deal


def dealt(labels: list[int], shares: dict[str, float], seed: int = 0) -> dict[str, list[int]]:
    """Indices of the examples in each part."""
    parts = deal(np.arange(len(labels)), np.array(labels, np.int64), shares, seed)
    return {name: part.inputs.tolist() for name, part in parts.items()}


@pytest.mark.parametrize("n", [3, 4, 5, 10, 11, 97, 1000])
@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_every_example_goes_into_exactly_one_part(n: int, classes: int) -> None:
    parts = dealt([i % classes for i in range(n)], {"validation": 0.15, "test": 0.15})
    assert sorted(chain.from_iterable(parts.values())) == list(range(n))
    assert all(parts.values())


def test_parts_have_the_size_asked_for() -> None:
    parts = dealt([0, 1] * 500, {"validation": 0.2, "test": 0.123})
    assert {name: len(indices) for name, indices in parts.items()} == {"validation": 200, "test": 123, "train": 677}


def test_targets_stay_with_their_inputs() -> None:
    labels = np.arange(100, dtype=np.int64) % 7
    for part in deal(np.arange(100), labels, {"validation": 0.3, "test": 0.3}, 1).values():
        assert (labels[part.inputs] == part.targets).all()


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_its_share_to_within_one_example(seed: int) -> None:
    sizes = [500, 83, 17, 3, 300]
    labels = np.repeat(np.arange(5), sizes)
    shares = {"validation": 0.15, "test": 0.25}
    parts = dealt(labels.tolist(), shares, seed)
    for name, share in shares.items():
        counts = np.bincount(labels[parts[name]], minlength=5)
        assert np.abs(counts - share * np.array(sizes)).max() <= 1.0


def test_the_seed_decides() -> None:
    labels = [0, 1, 2] * 50
    shares = {"validation": 0.2, "test": 0.2}
    assert dealt(labels, shares, 3) == dealt(labels, shares, 3)
    assert dealt(labels, shares, 3)["test"] != dealt(labels, shares, 4)["test"]


def test_order_of_the_examples_does_not_tell_their_part() -> None:
    """Sorted labels, as in many files: the first of each class must not all land in one part."""
    test = np.array(dealt([0] * 500 + [1] * 500, {"validation": 0.2, "test": 0.2})["test"]) % 500
    assert 200 < test.mean() < 300


def test_the_split_is_the_same_in_every_release() -> None:
    """Held-out examples must stay held out: a change here needs a new FORMAT and a note to users."""
    assert dealt([0, 1] * 8, {"validation": 0.25, "test": 0.25}) == {
        "validation": [0, 5, 6, 9],
        "test": [1, 8, 13, 14],
        "train": [2, 3, 4, 7, 10, 11, 12, 15],
    }


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(DataError, match=r"validation 0\.6 \+ test 0\.4 of 100 examples leave none to train on"):
        dealt([0, 1] * 50, {"validation": 0.6, "test": 0.4})
