"""Where the batches of a training come from: data that lies in memory whole, or that is streamed from its file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tuner.settings import read_settings
from tuner.training import data
from tuner.training.data import DataInfo, Part, PartName
from tuner.training.machine import total_memory
from tuner.training.resident import Resident, resident
from tuner.training.streamed import Streamed

# Of the machine's memory, for one part of a data set: what is mapped is shared by all trainings, but they themselves
# and the database need room too, and the validation part comes on top.
CPU_SHARE = 1 / 2
CUDA_SHARE = 1 / 2  # of the memory that is free when the training begins: activations come on top


class Batches(Protocol):
    """A part of a data set, as a training sees it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def resident(self) -> bool:
        """Whether any example is at hand at any time: several members of a stack gather each their own."""

    def __len__(self) -> int:
        """Examples."""

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised inputs and targets, `size` examples at a time, in the given order or as they are stored.

        The last batch holds what remains. Nothing goes on behind the back of whoever drops it before its end.
        Raises DataError.
        """


def open_part(part: Part, info: DataInfo, device: torch.device) -> Batches:
    """Kept in memory whole where it fits, else streamed: the same batches to the bit. Raises InvalidInput."""
    fits = part.inputs.nbytes + part.targets.nbytes <= data_memory(device)
    return Resident(part, info, device) if fits else Streamed(part, info, device)


def load_part(data_folder: Path, name: PartName, device: torch.device) -> Batches:
    """The same of prepared data; on a GPU, all networks of a process share what is kept whole. Raises DataError."""
    part = data.part(data_folder, name)
    fits = part.inputs.nbytes + part.targets.nbytes <= data_memory(device)
    return resident(data_folder, name, device) if fits else Streamed(part, data.info(data_folder), device)


def data_memory(device: torch.device) -> float:
    """Bytes that a part of a data set may have to be kept whole on a device: TUNER_DATA_MEMORY_MB, else a share.

    Raises InvalidInput for a setting that is no such number.
    """
    given = read_settings().data_memory
    if given is not None:
        return given
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return CUDA_SHARE * free
    total = total_memory()
    return math.inf if total is None else CPU_SHARE * total
