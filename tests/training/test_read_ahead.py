from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from tuner.training.read_ahead import will_need

PAGE = mmap.PAGESIZE
PAGES = 5000


def held(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pages of a mapped array the system has in memory."""
    pages = np.zeros(PAGES, np.uint8)
    address, answer = (ctypes.c_void_p(values.ctypes.data) for values in (array, pages))
    assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(array.nbytes), answer) == 0
    return (pages & 1).astype(np.bool_)


def test_what_is_asked_for_is_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "array"
    path.write_bytes(bytes(PAGES * PAGE))
    with path.open("rb") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    array = np.memmap(path, np.uint8, "r", shape=(PAGES, PAGE))
    if held(array).any():
        pytest.skip("the folder of temporary files is memory itself")

    asked = torch.arange(1, PAGES, 2).flip(0)  # more than one call of the system takes
    will_need(from_dlpack(array), asked)
    deadline = time.monotonic() + 10
    while not held(array)[asked].all() and time.monotonic() < deadline:
        time.sleep(0.01)
    if not held(array).any():
        pytest.skip("this system does not let us ask: Linux 6.18 does, older ones with CAP_SYS_NICE")
    assert held(array).nonzero()[0].tolist() == list(range(1, PAGES, 2))
