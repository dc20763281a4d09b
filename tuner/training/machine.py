"""Cores and memory of this machine and its processes, as Linux tells them. None: unknown, on another system perhaps."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")  # below it stand proc and sys

# Of a control group, version 2 and version 1: its limit, what it uses, and how much of that are files' pages that
# nobody has looked at lately, which the kernel gives up first.
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def usable_cores() -> int:
    """Cores that this process may run on; batch systems and containers give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory(root: Path = ROOT) -> int | None:
    """Bytes that this process could ever have: the machine's, or the limit of a container or a batch system."""
    machine = _fields(root / "proc/meminfo").get("MemTotal")
    limits = [_number(folder / limit) for folder in _groups(root) for limit, *_ in _GROUP_FILES]
    return None if machine is None else min([machine, *(limit for limit in limits if limit is not None)])


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that new processes may still take: of the machine, or what a container or a batch system leaves of it."""
    machine = _fields(root / "proc/meminfo").get("MemAvailable")
    return None if machine is None else min([machine, *(left for folder in _groups(root) for left in _left_in(folder))])


def peak_memory(root: Path = ROOT) -> int | None:
    """The most bytes that this process has held for itself alone since it was forked.

    What it still shares with the process that it was forked from, and the pages of files, do not count.
    """
    pages, status = _fields(root / "proc/self/smaps_rollup"), _fields(root / "proc/self/status")
    if "Private_Dirty" not in pages or "VmHWM" not in status:
        return None
    return pages["Private_Dirty"] + status["VmHWM"] - status["VmRSS"]


def limit_memory() -> None:
    """From now on this process gets no more memory than is available, instead of the machine having too little.

    What asks for more fails; files that are mapped do not count.
    """
    used, available = _fields(ROOT / "proc/self/status").get("VmData"), available_memory()
    if used is not None and available is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (used + available, most))


def held_memory(pid: int, root: Path = ROOT) -> int | None:
    """Bytes of a process; a page that several share is divided among them, so that sums over processes are right."""
    return _fields(root / f"proc/{pid}/smaps_rollup").get("Pss")


def _groups(root: Path) -> Iterator[Path]:
    """The memory control groups that this process is in: its own, and all around it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = mount / path.lstrip("/")
        # A container sees its own group as the root, though the path may be the one that its host knows.
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _left_in(folder: Path) -> Iterator[int]:
    """What a group's limit leaves."""
    for limit, used, idle in _GROUP_FILES:
        most, taken = _number(folder / limit), _number(folder / used)
        if most is not None and taken is not None:
            yield max(0, most - taken + _fields(folder / "memory.stat").get(idle, 0))


def _number(path: Path) -> int | None:
    """None where there is no such file, or no limit: "max"."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number, as bytes where they are in kB."""
    fields = {}
    for line in _text(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) > 1 and words[1].isdigit():
            fields[words[0]] = int(words[1]) * (1024 if words[-1] == "kB" else 1)
    return fields


def _text(path: Path) -> str:
    """Nothing where there is no such file, or it may not be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
