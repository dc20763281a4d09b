"""What is read of a machine's memory: its own, and what control groups leave of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuner.training.machine import available_memory, held_memory, peak_memory, total_memory

MIB = 2**20


def machine(root: Path, groups: str, **files: str) -> Path:
    """A root folder with 8 MiB of memory available; the files stand below sys/fs/cgroup."""
    contents = {"proc/meminfo": "MemTotal: 16384 kB\nMemAvailable: 8192 kB\n", "proc/self/cgroup": groups}
    for name, text in {**contents, **{f"sys/fs/cgroup/{path}": text for path, text in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    free = machine(tmp_path, "0::/user\n", **{"user/memory.max": "max\n", "user/memory.current": f"{MIB}\n"})
    assert (available_memory(free), total_memory(free)) == (8 * MIB, 16 * MIB)


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/job\n", {"job/memory.max": f"{4 * MIB}", "job/memory.current": f"{2 * MIB}"}),
        ("0::/job/step\n", {"job/memory.max": f"{4 * MIB}", "job/memory.current": f"{2 * MIB}"}),
        ("0::/docker/1f\n", {"memory.max": f"{4 * MIB}", "memory.current": f"{2 * MIB}"}),
        (
            "4:cpu,memory:/job\n3:cpuset:/\n",
            {"memory/job/memory.limit_in_bytes": f"{4 * MIB}", "memory/job/memory.usage_in_bytes": f"{2 * MIB}"},
        ),
    ],
    ids=["its own group", "a group around it", "a container's", "version 1"],
)
def test_a_limit_counts_wherever_it_is_set(tmp_path: Path, groups: str, files: dict[str, str]) -> None:
    limited = machine(tmp_path, groups, **files)
    assert (available_memory(limited), total_memory(limited)) == (2 * MIB, 4 * MIB)


def test_pages_of_files_that_nobody_looks_at_are_free(tmp_path: Path) -> None:
    files = {"memory.max": f"{4 * MIB}", "memory.current": f"{4 * MIB}", "memory.stat": f"anon 5\ninactive_file {MIB}"}
    assert available_memory(machine(tmp_path, "0::/\n", **files)) == MIB


def test_unknown_is_not_guessed(tmp_path: Path) -> None:
    readers = (available_memory, total_memory, peak_memory)
    assert [read(tmp_path) for read in readers] == [None] * 3
    assert held_memory(1, tmp_path) is None


def test_memory_that_was_given_back_is_in_the_peak() -> None:
    code = """
from tuner.training.machine import peak_memory
print(peak_memory(), len(b"x" * 2**26), peak_memory())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, block, after = map(int, process.stdout.split())
    assert after - before == pytest.approx(block, rel=0.05)
