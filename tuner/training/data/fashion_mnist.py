"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): the test part is the published one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.settings import Settings
from tuner.spec.config import FashionMnistData
from tuner.training.data.dataset import Dataset, Part, moments
from tuner.training.data.sources import SourceFile, read_sources
from tuner.training.data.split import deal


def _published(name: str, sha256: str) -> SourceFile:
    mirrors = (
        f"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{name}.gz",
        f"https://storage.googleapis.com/tensorflow/tf-keras-datasets/{name}.gz",
    )
    return SourceFile(folder="fashion_mnist", name=name, sha256=sha256, mirrors=mirrors)


FILES = (
    _published("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    _published("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    _published("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    _published("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)


def build(config: FashionMnistData, settings: Settings) -> Dataset:
    """Images uint8 (n, 1, 28, 28)."""
    images, labels, test_images, test_labels = (_parse_idx(content) for content in read_sources(FILES, settings))
    parts = deal(
        images[:, np.newaxis], labels.astype(np.int64), {"validation": config.split.validation}, config.split.seed
    )
    parts["test"] = Part(inputs=test_images[:, np.newaxis], targets=test_labels.astype(np.int64))
    mean, std = moments(parts["train"].inputs)
    return Dataset(task=config.task, kind=config.kind, parts=parts, outputs=10, mean=mean, std=std)


def _parse_idx(content: bytes) -> NDArray[Any]:
    """Unsigned bytes in the IDX format: two zeros, type 8, number of axes, their lengths (big-endian), the values."""
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
