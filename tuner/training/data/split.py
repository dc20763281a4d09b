"""Dealing examples out to the parts: by a seed of its own, in the same proportion of every class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.seeds import derive_seed
from tuner.training.data.dataset import Part, PartName


def deal(
    inputs: NDArray[Any], labels: NDArray[np.int64], shares: Mapping[PartName, float], seed: int
) -> dict[PartName, Part]:
    """Cuts parts of the given shares out of n labelled examples; `train` gets the rest.

    Each part has at least one example and `round(share * n)` otherwise; of every class a part has its share to within
    one example. The order of inputs is kept within a part.

    Raises DataError where nothing is left to train on.
    """
    counts = {name: max(1, round(share * len(labels))) for name, share in shares.items()}
    if sum(shares.values()) >= 1 or sum(counts.values()) >= len(labels):
        asked = " + ".join(f"{name} {share:g}" for name, share in shares.items())
        raise DataError(
            f"data.split: {asked} of {len(labels)} examples leave none to train on; make the shares smaller"
        )
    order = _stratified_order(labels, seed)
    parts: dict[PartName, Part] = {}
    start = 0
    for name, count in counts.items():
        parts[name] = _take(inputs, labels, order[start : start + count])
        start += count
    parts["train"] = _take(inputs, labels, order[start:])
    return parts


def _take(inputs: NDArray[Any], labels: NDArray[np.int64], indices: NDArray[np.int64]) -> Part:
    indices = np.sort(indices)
    return Part(inputs=inputs[indices], targets=labels[indices])


def _stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """A random order of which every stretch holds the classes in their proportion (systematic sampling).

    The k-th member of a class of m, in random order, is placed at (k + 1/2) / m.
    """
    # RandomState's stream is the same in all versions of numpy (NEP 19), Generator's is not: what is held out stays so.
    shuffled = np.random.RandomState(derive_seed("split", seed)).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = labels[shuffled] == label
        count = np.count_nonzero(members)
        place[members] = (np.arange(count) + 0.5) / count
    return shuffled[np.argsort(place, kind="stable")]
