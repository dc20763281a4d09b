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
from tuner.training.resident import chunk_size

CHUNKS_AHEAD = 2  # of resident.CHUNK_BYTES, read or being read while another one is trained on

# A page that is touched brings its neighbours into the process's memory, 64 KB of them where the system has them at
# hand. After so many examples all are let go of: at most 64 MB are mapped.
MAPPED_EXAMPLES = 1024


class Streamed:
    """Takes the memory of a few chunks, whatever the size of the part; its batches equal Resident's to the bit."""

    resident = False

    def __init__(self, part: Part, info: DataInfo, device: torch.device) -> None:
        self.device = device
        self._inputs, self._targets = _MappedFile(part.inputs), _MappedFile(part.targets)
        self._normalise = Normalise(info.mean, info.std)

    def __len__(self) -> int:
        return len(self._targets.values)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Batches` has it. Raises DataError where a file was cut short since it was opened."""
        self._inputs.expect(random=order is not None)
        self._targets.expect(random=order is not None)
        positions = torch.arange(len(self)) if order is None else order.cpu()
        ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
        reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="data")
        try:
            for chunk in positions.split(chunk_size(self._inputs.values, self._targets.values, size)):
                ahead.append(reader.submit(self._read, chunk))
                if len(ahead) > CHUNKS_AHEAD:
                    yield from self._split(ahead.popleft(), size)
            while ahead:
                yield from self._split(ahead.popleft(), size)
        finally:
            reader.shutdown(cancel_futures=True)

    def _read(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """In the thread: all that can be done without a GPU."""
        pinned = self.device.type == "cuda"
        inputs, targets = self._inputs.read(positions, pinned), self._targets.read(positions, pinned)
        return (inputs if pinned else self._normalise(inputs)), targets

    def _split(self, chunk: Future[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets = chunk.result()
        if self.device.type == "cuda":
            inputs = self._normalise(inputs.to(self.device, non_blocking=True))
            targets = targets.to(self.device, non_blocking=True)
        yield from zip(inputs.split(size), targets.split(size), strict=True)


class _MappedFile:
    """An array on disk. What is read of it does not stay in the process's memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        if not isinstance(array.base, mmap.mmap):
            raise TypeError("only a memory map can be streamed")
        self.values = from_dlpack(array)
        self._path = getattr(array, "filename", None)
        self._map = array.base

    def expect(self, *, random: bool) -> None:
        """Whether the system should read on where an example ends."""
        self._map.madvise(mmap.MADV_RANDOM if random else mmap.MADV_NORMAL)

    def read(self, positions: Tensor, pinned: bool) -> Tensor:
        """The examples at these positions, read in the order in which they stand in the file."""
        self._check()
        read = torch.empty((len(positions), *self.values.shape[1:]), dtype=self.values.dtype, pin_memory=pinned)
        ascending, places = positions.sort()
        for some, there in zip(ascending.split(MAPPED_EXAMPLES), places.split(MAPPED_EXAMPLES), strict=True):
            read.index_copy_(0, there, self.values.index_select(0, some))
            self._map.madvise(mmap.MADV_DONTNEED)
        return read

    def _check(self) -> None:
        """To read a map beyond the end of its file would kill the process. Raises DataError."""
        try:
            whole = self._map.size() >= len(self._map)
        except OSError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror}") from error
        if not whole:
            raise DataError(f"cannot read {self._path}: it was cut short; launch again to prepare it anew")
