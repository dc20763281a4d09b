from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuner.errors import DataError
from tuner.training.data.dataset import Dataset, Part, check, moments


def dataset(**changes: Part) -> Dataset:
    part = Part(inputs=np.arange(6, dtype=np.float32).reshape(3, 2), targets=np.array([0, 1, 1]))
    parts = {"train": part, "validation": part, "test": part} | changes
    return Dataset(task="classification", kind="vector", parts=parts, outputs=2, mean=2.5, std=1.7)


def inputs(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 2)


FAULTS = {
    "the test part is empty": Part(inputs=inputs(), targets=np.array([], np.int64)),
    "the test part has 1 inputs but 2 targets": Part(inputs=inputs(1, 2), targets=np.array([0, 1])),
    "labels from 0 to 2, not from 0 to 1": Part(inputs=inputs(1, 2, 3, 4), targets=np.array([0, 2])),
    "labels from -1 to 1": Part(inputs=inputs(1, 2, 3, 4), targets=np.array([-1, 1])),
    "values that are not finite": Part(inputs=inputs(1, np.nan), targets=np.array([0])),
    "shape \\(3,\\), those of train \\(2,\\)": Part(inputs=np.zeros((1, 3)), targets=np.array([0])),
    "would take 37 GiB; the limit is 8 GiB": Part(
        inputs=np.broadcast_to(np.float32(0), (10**6, 100, 100)), targets=np.array([0])
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_data_that_no_training_could_use_is_refused(fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        check(dataset(test=FAULTS[fault]))


def test_constant_inputs_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to learn from"):
        check(replace(dataset(), std=0.0))


def test_forecast_targets_have_the_horizon() -> None:
    part = Part(inputs=inputs(1, 2), targets=np.zeros((1, 5), np.float32))
    with pytest.raises(DataError, match=r"targets of shape \(5,\), not \(2,\)"):
        check(replace(dataset(train=part), task="forecast"))


def test_good_data_passes() -> None:
    check(dataset())


def test_moments_equal_those_of_the_whole_in_float64() -> None:
    values = np.random.RandomState(0).randint(0, 256, size=(10_000, 1, 5, 5)).astype(np.uint8)
    assert moments(values) == pytest.approx((values.astype(float).mean(), values.astype(float).std()), rel=1e-12)
