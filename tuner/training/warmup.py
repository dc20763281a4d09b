"""What a fork server does once so that its children start in a tenth of a second."""

from __future__ import annotations

import ctypes
import os
import sys

# From <malloc.h> of glibc, and the largest values it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEEP_BYTES, HEAP_BYTES = 2**31 - 1, 32 * 2**20


def warm_up() -> None:
    """Imports all that a first training step needs; leaves the process with one thread and without CUDA.

    Nothing is computed here: a backward pass or a look at the GPU would start threads or a driver, which forks do
    not survive.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's starts its threads when it is imported
    import torch

    torch.set_num_threads(1)
    import tuner.training.loop  # noqa: F401  for its imports

    keep_freed_memory()


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for the next allocation instead of giving it back to the system.

    Each step allocates and frees its activations. Where these are larger than a few hundred kilobytes every one was
    mapped anew, page fault by page fault: a quarter of the time of a CNN's step on Fashion-MNIST.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            libc.mallopt(M_MMAP_THRESHOLD, HEAP_BYTES)
            libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
