"""Data sets that are always at hand: digits and spiral."""

from __future__ import annotations

import numpy as np
import pytest

from tuner.errors import DataError
from tuner.settings import Settings
from tuner.spec.config import DigitsData, SpiralData, Split
from tuner.training import data
from tuner.training.data import Part, PartName


def parts(config: DigitsData | SpiralData, settings: Settings) -> dict[PartName, Part]:
    folder = data.prepare(config, settings)
    return {name: data.part(folder, name) for name in ("train", "validation", "test")}


def test_digits(settings: Settings) -> None:
    info = data.info(data.prepare(DigitsData(), settings))
    assert (info.task, info.kind, info.input_shape, info.outputs) == ("classification", "image", (1, 8, 8), 10)
    assert info.sizes == {"train": 1257, "validation": 270, "test": 270}
    assert (info.target_feature, info.baselines) == (None, {})
    for part in parts(DigitsData(), settings).values():
        assert (part.inputs.dtype, part.inputs.shape[1:]) == (np.uint8, (1, 8, 8))
        assert (part.inputs.min(), part.inputs.max()) == (0, 16)
        assert part.targets.dtype == np.int64
        assert set(part.targets) == set(range(10))


def test_mean_and_standard_deviation_are_of_the_training_part_alone(settings: Settings) -> None:
    config = DigitsData(split=Split(validation=0.4, test=0.4))
    info, train = data.info(data.prepare(config, settings)), parts(config, settings)["train"].inputs.astype(float)
    assert (info.mean, info.std) == pytest.approx((train.mean(), train.std()))


def test_another_split_seed_holds_out_other_digits(settings: Settings) -> None:
    first, second = (parts(DigitsData(split=Split(seed=seed)), settings)["test"] for seed in (0, 1))
    assert not np.array_equal(first.inputs, second.inputs)


def test_a_split_that_leaves_nothing_to_train_on(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"data\.split: .* leave none to train on"):
        data.prepare(DigitsData(split=Split(validation=0.5, test=0.5)), settings)
    assert not [path for path in settings.cache.iterdir() if path.is_dir()]


def test_spiral_follows_the_playground(settings: Settings) -> None:
    made = parts(SpiralData(points=400), settings).values()
    points, labels = np.concatenate([part.inputs for part in made]), np.concatenate([part.targets for part in made])
    for turn, label in ((0.0, 1), (np.pi, 0)):
        arm = points[labels == label]
        arm = arm[np.argsort(np.hypot(*arm.T))]  # from the middle outwards
        for i in range(200):
            r, t = i / 200 * 5, 1.75 * i / 200 * 2 * np.pi + turn
            assert arm[i] == pytest.approx((r * np.sin(t), r * np.cos(t)), abs=1e-5)


def test_noise_moves_points_by_no_more_than_itself(settings: Settings) -> None:
    clean, noisy = (parts(SpiralData(points=300, noise=noise), settings)["train"] for noise in (0.0, 0.5))
    moved = np.abs(noisy.inputs - clean.inputs)
    assert (clean.targets == noisy.targets).all()
    assert 0.4 < moved.max() <= 0.5


@pytest.mark.parametrize("points", [10, 11, 501])
def test_spiral_of_any_size(settings: Settings, points: int) -> None:
    made = parts(SpiralData(points=points, noise=0.2), settings)
    labels = np.concatenate([part.targets for part in made.values()])
    assert np.bincount(labels).tolist() == [points // 2, points - points // 2]
    assert all(part.inputs.dtype == np.float32 for part in made.values())
