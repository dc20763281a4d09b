from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tuner.errors import InvalidInput
from tuner.training import memory
from tuner.training.memory import data_memory, machine_memory

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of control groups; this process is in none until a test says so."""
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_PROC_CGROUP", tmp_path / "own")
    return tmp_path


def limit(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text + "\n")


def test_without_limits_it_is_the_machines(container: Path) -> None:
    assert machine_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (container / "own").write_text("0::/user.slice\n")
    limit(container / "user.slice", "memory.max", "max")
    assert machine_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_narrowest_group_counts(container: Path) -> None:
    (container / "own").write_text("0::/job/step\n")
    limit(container / "job", "memory.max", str(GIB // 2))
    limit(container / "job" / "step", "memory.max", str(GIB))
    assert machine_memory() == GIB // 2


def test_within_a_container_its_own_group_is_the_root(container: Path) -> None:
    (container / "own").write_text("0::/docker/0123456789ab\n")
    limit(container, "memory.max", str(GIB))
    assert machine_memory() == GIB


def test_the_first_version_of_control_groups(container: Path) -> None:
    (container / "own").write_text("5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n")
    limit(container / "memory", "memory.limit_in_bytes", "9223372036854771712")
    limit(container / "memory" / "job", "memory.limit_in_bytes", str(GIB))
    assert machine_memory() == GIB


def test_data_gets_a_share_or_what_the_operator_says(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (container / "own").write_text("0::/\n")
    limit(container, "memory.max", str(GIB))
    monkeypatch.delenv("TUNER_DATA_MEMORY_MB", raising=False)
    assert data_memory(CPU) == GIB // 2
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", "100")
    assert data_memory(CPU) == 100 * 2**20


@pytest.mark.parametrize("value", ["much", "0", "-1", "inf", "4GB"])
def test_a_setting_that_is_no_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", value)
    with pytest.raises(InvalidInput, match=f"TUNER_DATA_MEMORY_MB: '{value}' is not a number of megabytes above 0"):
        data_memory(CPU)
