"""A part of a data set that does not fit: its files are read ahead of the step, by one thread a pass."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from tuner.errors import DataError
from tuner.training.data.dataset import DataInfo, Part
from tuner.training.models.layers import Normalise
from tuner.training.read_ahead import will_need
from tuner.training.resident import chunk_size

CHUNKS_AHEAD = 2  # of resident.CHUNK_BYTES, read or being read while another one is trained on

# A page that is touched brings those around it that the system holds already into the process's memory, 64 KB or more.
# After so many examples all are let go of.
MAPPED_EXAMPLES = 256


class Streamed:
    """Takes the memory of a few chunks, whatever the size of the part; its batches equal Resident's to the bit.

    A disk that fails under a map ends the process (SIGBUS): to its supervisor that is a death, as of any other child.
    """

    resident = False

    def __init__(self, part: Part, info: DataInfo, device: torch.device) -> None:
        self.device = device
        self._inputs, self._targets = _MappedFile(part.inputs), _MappedFile(part.targets)
        self._normalise = Normalise(info.mean, info.std)

    def __len__(self) -> int:
        return len(self._targets.values)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Batches` has it. Raises DataError where a file was cut short since it was opened."""
        for file in (self._inputs, self._targets):
            file.expect(random=order is not None)
        positions = torch.arange(len(self)) if order is None else order.cpu()
        ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
        reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="data")
        try:
            for chunk in torch.split(positions, chunk_size(self._inputs.values, self._targets.values, size)):
                ahead.append(reader.submit(self._read, chunk))
                if len(ahead) > CHUNKS_AHEAD:
                    yield from self._split(ahead.popleft(), size)
            while ahead:
                yield from self._split(ahead.popleft(), size)
        finally:
            reader.shutdown(cancel_futures=True)

    def _read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """In the thread."""
        pinned = self.device.type == "cuda"
        return self._inputs.read(positions, pinned), self._targets.read(positions, pinned)

    def _split(self, chunk: Future[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        # Normalised here, not in the thread: so it is in the cache of the core that trains, and smaller on the way.
        raw, targets = (array.to(self.device, non_blocking=True) for array in chunk.result())
        yield from zip(torch.split(self._normalise(raw), size), torch.split(targets, size), strict=True)


class _MappedFile:
    """An array on disk. What is read of it does not stay in the process's memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        base: object = array.base
        if not isinstance(base, mmap.mmap):
            raise TypeError("only a memory map can be streamed")
        self.values = from_dlpack(array)
        self._map = base
        self._name = getattr(array, "filename", "a file of the data set")
        self._random = False

    def expect(self, *, random: bool) -> None:
        """Whether examples are read in a random order or as they stand."""
        self._random = random
        self._map.madvise(mmap.MADV_RANDOM if random else mmap.MADV_NORMAL)

    def read(self, positions: Tensor, pinned: bool) -> Tensor:
        """The examples at these positions. Raises DataError."""
        self._check()
        if self._random:
            will_need(self.values, positions)
        examples = torch.empty((len(positions), *self.values.shape[1:]), dtype=self.values.dtype, pin_memory=pinned)
        pieces = zip(torch.split(positions, MAPPED_EXAMPLES), torch.split(examples, MAPPED_EXAMPLES), strict=True)
        for some, there in pieces:
            torch.index_select(self.values, 0, some, out=there)
            self._map.madvise(mmap.MADV_DONTNEED)
        return examples

    def _check(self) -> None:
        """Raises DataError where the file was cut short: to read a map beyond it would kill the process."""
        try:
            whole = self._map.size() >= len(self._map)
        except OSError as error:
            raise DataError(f"cannot read {self._name}: {error.strerror}") from error
        if not whole:
            raise DataError(f"cannot read {self._name}: it was cut short; launch again to prepare it anew")
