"""A part of a data set that lives on the device; batches are views of gathered chunks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from tuner.training import data
from tuner.training.data import DataInfo, Part, PartName
from tuner.training.models.layers import Normalise

CHUNK_BYTES = 8 * 2**20  # normalised: small enough to stay in a processor's cache, large enough to pay

SHARED_PARTS = 4  # kept on GPUs: training and validation part of two data sets


def chunk_size(inputs: Tensor, targets: Tensor, batch: int) -> int:
    """Examples to gather at once, whole batches of them."""
    example_bytes = 4 * inputs[0].numel() + targets[0].nbytes
    return batch * max(1, CHUNK_BYTES // (example_bytes * batch))


class Resident:
    """Inputs in their compact type and targets, on the device (on a CPU: the memory map itself, shared by all)."""

    resident = True

    def __init__(self, part: Part, info: DataInfo, device: torch.device) -> None:
        self.device = device
        # DLPack, since `torch.from_numpy` warns of arrays that are read-only.
        self.inputs = from_dlpack(part.inputs).to(device)
        self.targets = from_dlpack(part.targets).to(device)
        self.normalise = Normalise(info.mean, info.std)

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Batches` has it.

        Whole chunks are gathered, converted and normalised at once: a step then costs two views.
        """
        chunk = chunk_size(self.inputs, self.targets, size)
        count = len(self) if order is None else len(order)
        for start in range(0, count, chunk):
            if order is None:
                raw, targets = self.inputs[start : start + chunk], self.targets[start : start + chunk]
            else:
                chosen = order[start : start + chunk]
                raw, targets = self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen)
            yield from zip(torch.split(self.normalise(raw), size), torch.split(targets, size), strict=True)

    def gather(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised inputs and targets of chosen examples."""
        return self.normalise(self.inputs.index_select(0, chosen)), self.targets.index_select(0, chosen)


def resident(data_folder: Path, part: PartName, device: torch.device) -> Resident:
    """A part of a prepared data set; all networks of a process share one in a GPU's memory. Raises DataError."""
    load = _shared if device.type == "cuda" else _load
    return load(data_folder, part, data.info(data_folder).digest, device)


def _load(data_folder: Path, part: PartName, digest: str, device: torch.device) -> Resident:
    return Resident(data.part(data_folder, part), data.info(data_folder), device)


@lru_cache(SHARED_PARTS)
def _shared(data_folder: Path, part: PartName, digest: str, device: torch.device) -> Resident:
    loaded = _load(data_folder, part, digest, device)
    torch.cuda.current_stream().synchronize()  # other streams are to read it
    return loaded
