"""What a worker and its children make of their machine: processors and memory from /proc, GPUs from NVIDIA's library.

Without torch, and without a CUDA context.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tuner.storage.workers import GpuUsage, Usage
from tuner.training.machine import available_memory, held_memory, usable_cores

_TICKS = os.sysconf("SC_CLK_TCK")  # a second, in which /proc counts


class UsageMeter:
    """Measures this process with all that descend from it."""

    def __init__(self) -> None:
        self._read_at = time.monotonic()
        self._spent = _processor_seconds(family(os.getpid()))

    def read(self) -> Usage:
        """Processors since the last reading, or since the meter was made; memory and GPUs as they are now.

        It takes some milliseconds: little for every heartbeat, too much for every step.
        """
        now, members = time.monotonic(), family(os.getpid())
        spent = _processor_seconds(members)
        used = sum(seconds - self._spent.get(pid, 0.0) for pid, seconds in spent.items())  # those that ended are missed
        elapsed, self._read_at, self._spent = now - self._read_at, now, spent
        held = [memory for memory in map(held_memory, members) if memory is not None]
        return Usage(
            busy_cores=max(0.0, used) / elapsed if spent and elapsed > 0 else None,
            cores=usable_cores(),
            memory_bytes=sum(held) if held else None,
            available_bytes=available_memory(),
            gpus=tuple(_gpus()),
        )


def family(pid: int) -> set[int]:
    """A process and all that descend from it; children's children too, of which the fork server's are."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(folder.name)):
            parents[int(folder.name)] = int(fields[1])
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return found


def _processor_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time of each process that still lives."""
    stats = ((pid, _stat(pid)) for pid in pids)
    return {pid: (int(fields[11]) + int(fields[12])) / _TICKS for pid, fields in stats if fields}


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold spaces: state, parent, …; none where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


# --- GPUs -----------------------------------------------------------------------------------------------------------


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def gpu_memory_share(index: int) -> float | None:
    """How much of a GPU's memory is in use, of the GPUs that this process may use; None: not known."""
    gpus = [*_gpus()]
    gpu = gpus[index % len(gpus)] if gpus else None
    if gpu is None or not gpu.total_bytes or gpu.memory_bytes is None:
        return None
    return gpu.memory_bytes / gpu.total_bytes


def _gpus() -> Iterator[GpuUsage]:
    """The GPUs that this process may use; all their use, not only its own."""
    library = _nvml()
    if library is None:
        return
    for device in _visible(library, os.environ.get("CUDA_VISIBLE_DEVICES")):
        utilization, memory = _Utilization(), _Memory()
        is_timed = library.nvmlDeviceGetUtilizationRates(device, ctypes.byref(utilization)) == 0
        is_sized = library.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
        yield GpuUsage(
            percent=utilization.gpu if is_timed else None,  # not known of a slice of a GPU
            memory_bytes=memory.used if is_sized else None,
            total_bytes=memory.total if is_sized else None,
        )


def _visible(library: ctypes.CDLL, names: str | None) -> Iterator[ctypes.c_void_p]:
    """Handles of the GPUs that CUDA_VISIBLE_DEVICES names, by number or by UUID; of all where it is not set."""
    if names is None:
        count = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(count))
        names = ",".join(map(str, range(count.value)))
    for name in filter(None, map(str.strip, names.split(","))):
        device = ctypes.c_void_p()
        find = library.nvmlDeviceGetHandleByIndex_v2 if name.isdigit() else library.nvmlDeviceGetHandleByUUID
        if find(ctypes.c_uint(int(name)) if name.isdigit() else name.encode(), ctypes.byref(device)) == 0:
            yield device


@cache
def _nvml() -> ctypes.CDLL | None:
    """None where there is no NVIDIA driver, or none that answers."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None
