"""Telling the system which examples of a mapped file will be read, all at once.

Read one by one, each page of an example is a page fault that waits for the disk. Told of a thousand examples the system
reads them side by side: measured, 4 to 10 times as many a second for a quarter of the processor's time.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
from torch import Tensor

# From <asm-generic/unistd.h>, the same for all processors, and from <limits.h>.
_PROCESS_MADVISE = 440
_IOV_MAX = 1024


def will_need(values: Tensor, positions: Tensor) -> None:
    """Has the rows at these positions of a mapped array read into the system's page cache, and waits for none of them.

    A hint: does nothing where the system does not know it, or an older one wants CAP_SYS_NICE for it.
    """
    if not hasattr(os, "pidfd_open"):
        return
    row_bytes = values[0].nbytes
    starts = values.data_ptr() + row_bytes * np.sort(positions.numpy())
    pages = starts - starts % mmap.PAGESIZE
    ranges = np.stack([pages, starts + row_bytes - pages], axis=1).astype(np.uintp)  # struct iovec
    syscall = ctypes.CDLL(None).syscall
    try:
        process = os.pidfd_open(os.getpid())
    except OSError:
        return
    try:
        for some in np.split(ranges, range(_IOV_MAX, len(ranges), _IOV_MAX)):
            address, count = ctypes.c_void_p(some.ctypes.data), ctypes.c_size_t(len(some))
            syscall(_PROCESS_MADVISE, process, address, count, mmap.MADV_WILLNEED, 0)
    finally:
        os.close(process)
