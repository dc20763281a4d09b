"""Data that does not fit into memory: read ahead by a thread, with the same training to the bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tuner.errors import DataError
from tuner.spec.stacking import Engine, Group
from tuner.training import checkpoint, data, loop
from tuner.training.batches import Batches, open_part
from tuner.training.data import cache
from tuner.training.data.dataset import Dataset, Part
from tuner.training.engine import measure
from tuner.training.progress import NoProgress, Stop

CPU = torch.device("cpu")
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("images", {"family": "cnn", "channels": 6, "dropout": 0.3}),
    "lstm": ("images", {"family": "rnn", "units": 5, "dropout": 0.3}),
    "gru": ("windows", {"family": "rnn", "cell": "gru", "units": 6}),
    "mlp": ("points", {"family": "mlp", "units": 6, "dropout": 0.3}),
}
NOTHING_FITS = "0.0001"


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.training.resident.CHUNK_BYTES", 3000)
    monkeypatch.setattr("tuner.training.streamed.MAPPED_EXAMPLES", 5)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", NOTHING_FITS)


def trial(trial_config: Any, model: str) -> Any:
    name, settings = MODELS[model]
    return trial_config(settings, {"metric": "mse" if name == "windows" else "loss"}, epochs=4)


def contents(path: Path) -> dict[str, Any]:
    """All of a checkpoint but the time it took."""
    kept = checkpoint.load(path)
    return {**vars(kept), "best": vars(kept.best), "seconds": None}


def opened(folder: Path, device: torch.device = CPU) -> Batches:
    return open_part(data.part(folder, "train"), data.info(folder), device)


def same_batches(some: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> bool:
    """To the bit, and as they lie in memory: arithmetic may depend on it."""
    return len(some) == len(others) and all(
        torch.equal(one, other) and one.stride() == other.stride()
        for batch, other_batch in zip(some, others, strict=True)
        for one, other in zip(batch, other_batch, strict=True)
    )


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_streamed_trial_equals_a_resident_one(
    model: str, request: Any, trial_config: Any, run: Any, equal_to_the_bit: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config, folder = trial(trial_config, model), request.getfixturevalue(MODELS[model][0])
    assert opened(folder).resident
    resident = run(config, folder, tmp_path / "resident")
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", NOTHING_FITS)
    assert not opened(folder).resident
    streamed = run(config, folder, tmp_path / "streamed")
    assert streamed.curve == resident.curve
    assert equal_to_the_bit(contents(streamed.checkpoints[-1]), contents(resident.checkpoints[-1]))


def test_a_trial_may_go_on_where_its_data_fits(
    images: Path, trial_config: Any, run: Any, stopper: Any, equal_to_the_bit: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    config = trial(trial_config, "cnn")
    whole = run(config, images, tmp_path / "whole")
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", NOTHING_FITS)
    first = run(config, images, tmp_path / "first", stop=stopper(Stop.NOW, at=20))  # an epoch asks 8 times
    assert first.result.epochs == 2
    monkeypatch.delenv("TUNER_DATA_MEMORY_MB")
    second = run(config, images, tmp_path / "second", resume=first.checkpoints[-1])
    assert first.curve + second.curve == whole.curve
    assert equal_to_the_bit(contents(second.checkpoints[-1]), contents(whole.checkpoints[-1]))


@pytest.mark.parametrize("chunk_bytes", [1, 5_000, 10**9])
@pytest.mark.parametrize("size", [1, 7, 100, 200])
@pytest.mark.parametrize("shuffled", [True, False])
def test_batches_are_those_of_resident_data(
    images: Path, shuffled: bool, size: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:93] if shuffled else None
    resident = list(opened(images).batches(size, order))
    monkeypatch.setattr("tuner.training.resident.CHUNK_BYTES", chunk_bytes)
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", NOTHING_FITS)
    assert same_batches(list(opened(images).batches(size, order)), resident)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_are_those_of_resident_data(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    order = torch.randperm(100, device=gpu)
    resident = list(opened(images, gpu).batches(7, order))
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", NOTHING_FITS)
    streamed = list(opened(images, gpu).batches(7, order))
    assert all(array.device.type == "cuda" for batch in streamed for array in batch)
    assert same_batches(streamed, resident)


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("at", [12, 8], ids=["in training", "in evaluation"])
def test_nothing_is_left_of_a_trial_that_is_stopped(
    at: int, images: Path, trial_config: Any, run: Any, stopper: Any, tmp_path: Path
) -> None:
    before = threads()
    training = run(trial(trial_config, "cnn"), images, tmp_path, stop=stopper(Stop.NOW, at=at))
    assert training.result.outcome is None
    assert threads() == before


@pytest.mark.usefixtures("streamed")
def test_nothing_is_left_of_a_trial_that_breaks(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    def broken() -> Stop:
        assert len(threads() - before) == 1, "the thread that reads"
        raise ZeroDivisionError

    before = threads()
    with pytest.raises(ZeroDivisionError):
        run(trial(trial_config, "cnn"), images, tmp_path, stop=broken)
    assert threads() == before


@pytest.mark.usefixtures("streamed")
def test_500_trials_leave_neither_threads_nor_files(images: Path) -> None:
    before, files = threads(), open_files()
    for _ in range(500):
        next(iter(opened(images).batches(16, torch.randperm(100))))
    assert threads() == before
    assert open_files() == files


@pytest.mark.usefixtures("streamed")
def test_trials_share_no_network_where_their_data_is_streamed(points: Path, trial_config: Any) -> None:
    group = Group(config=trial(trial_config, "mlp"), trials=40)
    assert measure([group], points, CPU, NoProgress()).engine == Engine(name="single", members=0)


@pytest.mark.usefixtures("streamed")
def test_a_file_that_is_cut_short_is_one_clear_line(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    inputs = folder / "train_inputs.npy"
    asked = 0

    def stop() -> Stop:
        nonlocal asked
        asked += 1
        if asked == 3:
            os.truncate(inputs, 1000)
        return Stop.GO_ON

    with pytest.raises(DataError, match=r"^cannot read .*train_inputs\.npy: it was cut short") as raised:
        run(trial(trial_config, "cnn"), folder, tmp_path / "run", stop=stop)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("streamed")
def test_a_folder_that_is_prepared_anew_does_not_disturb_a_training(
    images: Path, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    part = opened(folder)
    shutil.rmtree(folder)
    assert sum(len(targets) for _, targets in part.batches(16)) == 100


PASS = """
import os
import sys
from pathlib import Path
import torch
from tuner.training import data
from tuner.training.batches import open_part

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024

torch.set_num_threads(1)
folder = Path(sys.argv[1])
with (folder / "train_inputs.npy").open("rb") as file:  # to be read from the disk, as what does not fit would be
    os.fsync(file)
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
part = open_part(data.part(folder, "train"), data.info(folder), torch.device("cpu"))
before = peak()
for inputs, targets in part.batches(64, torch.randperm(len(part))):
    pass
print(peak() - before)
"""


def test_memory_is_that_of_a_few_chunks(tmp_path: Path) -> None:
    megabytes = 320

    def build() -> Dataset:
        def part(count: int) -> Part:
            pixels = np.zeros((count, 1, 128, 128), np.uint8)
            pixels[0] = 1
            return Part(inputs=pixels, targets=np.zeros(count, np.int64))

        parts = {"train": part(megabytes * 64), "validation": part(1), "test": part(1)}
        return Dataset(task="classification", kind="image", parts=parts, outputs=2, mean=0.0, std=1.0)

    cache.prepare(tmp_path / "large", build)

    def grown(limit: int) -> int:
        environment = {**os.environ, "TUNER_DATA_MEMORY_MB": str(limit)}
        command = [sys.executable, "-c", PASS, str(tmp_path / "large")]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)

    assert grown(limit=megabytes // 4) <= megabytes // 4
    assert grown(limit=2 * megabytes) >= megabytes
