"""How much of a machine's memory data may take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from tuner.settings import read_settings

# Of the machine's memory, for one part of a data set: what is mapped is shared by all trainings, but they themselves
# and the database need room too, and the validation part comes on top.
CPU_SHARE = 1 / 2
CUDA_SHARE = 1 / 2  # of the memory that is free when the training begins: activations come on top

_PROC_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def data_memory(device: torch.device) -> int:
    """Bytes that a part of a data set may have to be kept whole on a device: TUNER_DATA_MEMORY_MB, else a share.

    Raises InvalidInput for a setting that is no such number.
    """
    given = read_settings().data_memory
    if given is not None:
        return given
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(CUDA_SHARE * free)
    return int(CPU_SHARE * machine_memory())


def machine_memory() -> int:
    """Bytes of memory that this process could ever have: the machine's, or its container's limit."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """Limits of this process's memory control group and of those around it, in either version of cgroups."""
    try:
        lines = _PROC_CGROUP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = _CGROUPS, "memory.max"
        elif controllers == "memory":
            root, name = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Within a container the path may be the host's, of which only the root is to be seen here.
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            try:
                yield int((root / folder / name).read_text())
            except (OSError, ValueError):  # no such group here; "max" is no limit
                continue
