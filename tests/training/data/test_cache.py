from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tuner.errors import DataError
from tuner.settings import Settings
from tuner.spec.config import SpiralData, Split
from tuner.training import data

FILES = [f"{part}_{array}.npy" for part in ("train", "validation", "test") for array in ("inputs", "targets")]
SPIRAL = SpiralData(points=200, noise=0.1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


PREPARE = """
import sys
from tuner.settings import read_settings
from tuner.spec.config import SpiralData
from tuner.training import data

settings = read_settings({"TUNER_HOME": sys.argv[1]})
def prepare(points):
    return data.prepare(SpiralData(points=points, noise=0.1), settings)
"""


def test_a_prepared_folder_is_used_again(settings: Settings) -> None:
    folder = data.prepare(SPIRAL, settings)
    made = folder.stat()
    assert data.prepare(SPIRAL, settings) == folder
    assert folder.stat().st_ino == made.st_ino


def test_configurations_do_not_share_a_folder(settings: Settings) -> None:
    configs = [SPIRAL, SpiralData(points=201, noise=0.1), SpiralData(points=200, noise=0.1, split=Split(seed=1))]
    assert len({data.prepare(config, settings) for config in configs}) == 3


def test_arrays_are_mapped_and_cannot_be_written(settings: Settings) -> None:
    part = data.part(data.prepare(SPIRAL, settings), "train")
    assert isinstance(part.inputs, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        part.inputs[0] = 0


def test_training_and_validation_need_no_file_of_the_test_part(settings: Settings) -> None:
    folder = data.prepare(SPIRAL, settings)
    for name in ("test_inputs.npy", "test_targets.npy"):
        (folder / name).unlink()
    assert len(data.part(folder, "train").inputs) + len(data.part(folder, "validation").inputs) == 150


@pytest.mark.parametrize("name", [*FILES, "info.json", "SHA256SUMS"])
def test_one_flipped_byte_is_noticed_and_the_folder_made_anew(settings: Settings, name: str) -> None:
    folder = data.prepare(SPIRAL, settings)
    good = contents(folder)
    damaged = bytearray(good[name])
    damaged[len(damaged) * 2 // 3] ^= 0x10
    (folder / name).write_bytes(damaged)
    data.prepare(SPIRAL, settings)
    assert contents(folder) == good


def test_a_missing_file_is_made_again(settings: Settings) -> None:
    folder = data.prepare(SPIRAL, settings)
    good = contents(folder)
    (folder / "validation_targets.npy").unlink()
    data.prepare(SPIRAL, settings)
    assert contents(folder) == good


def test_arrays_in_use_survive_a_repair(settings: Settings) -> None:
    folder = data.prepare(SPIRAL, settings)
    part = data.part(folder, "train")
    before = part.inputs.copy()
    (folder / "test_inputs.npy").unlink()
    data.prepare(SPIRAL, settings)
    assert (part.inputs == before).all()


@pytest.mark.parametrize("length", [0, 50, 900])
def test_a_truncated_array_is_an_error_where_it_is_opened(settings: Settings, length: int) -> None:
    folder = data.prepare(SPIRAL, settings)
    os.truncate(folder / "train_inputs.npy", length)
    with pytest.raises(DataError, match=r"cannot read .*train_inputs\.npy"):
        data.part(folder, "train")


def test_a_folder_that_was_never_prepared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read prepared data in .*nowhere"):
        data.info(tmp_path / "nowhere")


def test_eight_processes_at_once_get_the_same_good_folder(settings: Settings, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = PREPARE + (
        "import pathlib, time\n"
        "print('ready', flush=True)\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.001)\n"
        "folder = prepare(100_000)\n"
        "print(folder, folder.stat().st_ino, data.info(folder).digest, data.part(folder, 'train').inputs.sum())\n"
    )
    processes = [start(code, settings.home, go) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    go.touch()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, answers
    assert len({out for out, _ in answers}) == 1
    folders = [path for path in settings.cache.iterdir() if path.is_dir()]
    assert [str(path) for path in folders] == [answers[0][0].split()[0]]


def test_a_process_killed_while_preparing_leaves_nothing_in_the_way(settings: Settings) -> None:
    points = 1_000_000
    process = start(PREPARE + f"prepare({points})", settings.home)
    while not any(settings.cache.glob(".spiral-*.unfinished/train_inputs.npy")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = data.prepare(SpiralData(points=points, noise=0.1), settings)
    assert sum(data.info(folder).sizes.values()) == points
    assert not list(settings.cache.glob("*.unfinished")) + list(settings.cache.glob(".*.unfinished"))


def test_a_full_disk_is_one_line_that_names_the_file(settings: Settings) -> None:
    """A limit on the size of files stands for the full disk: both make a write fail half-way."""
    code = PREPARE + (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: prepare(100_000)\n"
        "except data.cache.DataError as error: print(error)\n"
    )
    out, err = start(code, settings.home).communicate(timeout=60)
    assert err == ""
    assert len(out.splitlines()) == 1
    assert out.startswith(f"cannot write {settings.cache}/.spiral-")
    assert "train_inputs.npy" in out
    assert not [path for path in settings.cache.iterdir() if path.is_dir()]


def test_a_home_that_is_no_folder_is_named(settings: Settings) -> None:
    settings.home.write_text("")
    with pytest.raises(DataError, match=f"cannot write {settings.home}.*: Not a directory"):
        data.prepare(SPIRAL, settings)


def test_data_needs_neither_torch_nor_scikit_learn_to_be_imported() -> None:
    code = "import sys, tuner.training.data; print([m for m in ('torch', 'sklearn', 'optuna') if m in sys.modules])"
    assert start(code).communicate(timeout=60) == ("[]\n", "")
