"""The real public data sets."""

from __future__ import annotations

import csv
import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuner.errors import DataError
from tuner.settings import Settings
from tuner.spec.config import Etth1Data, FashionMnistData
from tuner.training import data

pytestmark = pytest.mark.data

TRAIN_HOURS, PART_HOURS = 12 * 30 * 24, 4 * 30 * 24


def test_fashion_mnist(real_settings: Settings) -> None:
    folder = data.prepare(FashionMnistData(), real_settings)
    info = data.info(folder)
    assert (info.input_shape, info.outputs) == ((1, 28, 28), 10)
    assert info.sizes == {"train": 54_000, "validation": 6_000, "test": 10_000}
    assert (info.mean / 255, info.std / 255) == pytest.approx(
        (0.2860, 0.3530), abs=1e-3
    )  # the figures all tutorials use
    train, validation, test = (data.part(folder, name) for name in ("train", "validation", "test"))
    assert np.bincount(validation.targets).tolist() == [600] * 10
    assert np.bincount(train.targets).tolist() == [5400] * 10
    assert test.targets[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]  # the published order
    assert train.inputs.dtype == np.uint8


def test_fashion_mnist_from_uncompressed_files(real_settings: Settings, real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plain" / "fashion_mnist"
    folder.mkdir(parents=True)
    for path in (real_data / "fashion_mnist").glob("*.gz"):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    plain = replace(real_settings, home=tmp_path / "other", data=folder.parent)
    digests = {data.info(data.prepare(FashionMnistData(), settings)).digest for settings in (real_settings, plain)}
    assert len(digests) == 1


def test_a_flipped_byte_in_the_published_file(real_settings: Settings, real_data: Path, tmp_path: Path) -> None:
    content = bytearray((real_data / "etth1" / "ETTh1.csv").read_bytes())
    content[1_000_000] ^= 0x01
    path = tmp_path / "damaged" / "etth1" / "ETTh1.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path} is damaged.*expected f18de3ad"):
        data.prepare(Etth1Data(), replace(real_settings, data=tmp_path / "damaged"))


def test_prepared_data_outlives_its_source(real_settings: Settings, real_data: Path, tmp_path: Path) -> None:
    shutil.copytree(real_data / "etth1", tmp_path / "lent" / "etth1")
    lent = replace(real_settings, data=tmp_path / "lent")
    folder = data.prepare(Etth1Data(), lent)
    shutil.rmtree(tmp_path / "lent")
    assert data.prepare(Etth1Data(), lent) == folder


@pytest.fixture
def columns(real_data: Path) -> dict[str, np.ndarray]:
    """ETTh1 as published, standardised by its first twelve months."""
    with (real_data / "etth1" / "ETTh1.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    raw = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "date"}
    return {name: (x - x[:TRAIN_HOURS].mean()) / x[:TRAIN_HOURS].std() for name, x in raw.items()}


def test_etth1_baseline_is_the_published_one(real_settings: Settings) -> None:
    info = data.info(data.prepare(Etth1Data(), real_settings))
    assert (info.task, info.kind, info.input_shape, info.outputs) == ("forecast", "sequence", (96, 1), 24)
    assert (info.mean, info.std, info.target_feature) == (0.0, 1.0, 0)
    assert info.baselines["validation"]["repeat last (mse)"] == pytest.approx(0.0696, abs=5e-5)
    assert info.baselines["test"]["repeat last (mse)"] == pytest.approx(0.0343, abs=5e-5)
    assert info.sizes == {"train": 8521, "validation": 2857, "test": 2857}


def test_etth1_test_part_is_the_informers(real_settings: Settings) -> None:
    test = data.part(data.prepare(Etth1Data(), real_settings), "test")
    assert np.square(test.targets - test.inputs[:, -1]).mean() == pytest.approx(0.0343, abs=5e-5)


@pytest.mark.parametrize(
    "config",
    [
        Etth1Data(),
        Etth1Data(inputs=("HUFL", "OT", "LULL"), window=48, horizon=5),
        Etth1Data(inputs=("MULL",), target="HULL", window=1, horizon=1),
    ],
)
def test_etth1_windows_lie_where_the_informer_code_has_them(
    real_settings: Settings, columns: dict[str, np.ndarray], config: Etth1Data
) -> None:
    folder = data.prepare(config, real_settings)
    features = np.stack([columns[name] for name in config.inputs], axis=1)
    first_forecast = {"train": config.window, "validation": TRAIN_HOURS, "test": TRAIN_HOURS + PART_HOURS}
    end = {"train": TRAIN_HOURS, "validation": TRAIN_HOURS + PART_HOURS, "test": TRAIN_HOURS + 2 * PART_HOURS}
    for name in ("train", "validation", "test"):
        part = data.part(folder, name)
        assert len(part.inputs) == end[name] - first_forecast[name] - config.horizon + 1
        for at in (0, 17, len(part.inputs) - 1):
            now = first_forecast[name] + at
            assert np.allclose(part.inputs[at], features[now - config.window : now], atol=1e-5)
            assert np.allclose(part.targets[at], columns[config.target][now : now + config.horizon], atol=1e-5)


def test_the_target_among_the_inputs_is_found(real_settings: Settings) -> None:
    for inputs, place in ((("OT",), 0), (("HUFL", "OT"), 1), (("HUFL", "MUFL"), None)):
        folder = data.prepare(Etth1Data(inputs=inputs, window=4, horizon=1), real_settings)
        assert data.info(folder).target_feature == place
