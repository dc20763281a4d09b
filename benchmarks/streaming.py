"""What it costs to train on data that does not fit: kept whole in memory against read ahead by a thread.

    python benchmarks/streaming.py              # ten minutes, on a quiet machine; 2 GiB of disk for that time
    python benchmarks/streaming.py --quick      # two minutes, to see that it works

Two sets are made, of images (uint8, 3 x 64 x 64) and of windows of a series (float32, 96 x 7), 1 GiB each, and every
contestant trains on a share of one in a random order, in as many processes at once as there are cores, each with one
thread, so that no core is idle for the thread that reads. For what is streamed the limit is a quarter of the set.

    from memory    the system holds the files in its page cache
    from disk      it does not: what it holds of them is thrown away ten times a second. Of files that are mapped whole
                   it can only be thrown away beforehand.

The order of the contestants changes from round to round. Prints examples per second of all processes and CPU time an
example, each as a ratio to resident data from memory too (of the same round), and the most memory that a process had:
of its own, and of files that it had mapped, libraries among them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from processes import together
from side_by_side import cores, listed, machine, rotated, spread

from tuner.spec.config import CnnConfig, MlpConfig, RnnConfig
from tuner.training import data
from tuner.training.batches import open_part
from tuner.training.data import cache
from tuner.training.data.dataset import Dataset, Part
from tuner.training.metrics import LOSSES
from tuner.training.models import build, materialise
from tuner.training.warmup import keep_freed_memory

BATCH = 64
EVICTIONS_A_SECOND = 10
MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Form:
    rounds: int
    megabytes: int  # of a set


FULL = Form(rounds=3, megabytes=1024)
QUICK = Form(rounds=1, megabytes=64)


@dataclass(frozen=True, kw_only=True)
class Workload:
    data: str
    share: float  # of the set that is trained on
    model: CnnConfig | MlpConfig | RnnConfig


WORKLOADS = {
    "CNN, images": Workload(data="images", share=1 / 8, model=CnnConfig(layers=3, channels=16)),
    "MLP, images": Workload(data="images", share=1 / 2, model=MlpConfig(units=64)),
    "LSTM, windows": Workload(data="windows", share=1 / 16, model=RnnConfig(units=64)),
}


@dataclass(frozen=True, kw_only=True)
class Contestant:
    streamed: bool
    cached: bool


RESIDENT = "resident, from memory"
CONTESTANTS = {
    RESIDENT: Contestant(streamed=False, cached=True),
    "streamed, from memory": Contestant(streamed=True, cached=True),
    "resident, from disk": Contestant(streamed=False, cached=False),
    "streamed, from disk": Contestant(streamed=True, cached=False),
}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one process measured."""

    examples: int
    seconds: float
    cpu_seconds: float
    own_memory: int  # bytes, at most
    file_memory: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short form, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--folder", type=Path, help="where the sets are made; default: the folder of temporary files")
    options = parser.parse_args()
    form = QUICK if options.quick else FULL
    measured: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="tuner-benchmark-", dir=options.folder) as place:
        for workload in WORKLOADS.values():
            if not (Path(place) / workload.data).exists():
                cache.prepare(Path(place) / workload.data, lambda name=workload.data: SETS[name](form.megabytes))
        names = list(CONTESTANTS)
        for turn in range(form.rounds):
            for name, workload in WORKLOADS.items():
                for contestant in rotated(names, turn):
                    result = measure(workload, CONTESTANTS[contestant], Path(place) / workload.data)
                    measured.setdefault(name, {}).setdefault(contestant, []).append(result)
    facts = {
        **machine(),
        "torch": torch.__version__,
        "set_megabytes": form.megabytes,
        "limit_megabytes": form.megabytes // 4,
        "rounds": form.rounds,
    }
    if options.json:
        print(json.dumps({"machine": facts, "measured": measured}, indent=2))
    else:
        show(facts, measured)


# --- data -------------------------------------------------------------------------------------------------------------


def images(megabytes: int) -> Dataset:
    random = np.random.default_rng(0)

    def part(count: int) -> Part:
        pixels = random.integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
        return Part(inputs=pixels, targets=random.integers(0, 10, count))

    parts = {"train": part(megabytes * MEGABYTE // (3 * 64 * 64)), "validation": part(64), "test": part(64)}
    return Dataset(task="classification", kind="image", parts=parts, outputs=10, mean=127.5, std=73.9)


def windows(megabytes: int) -> Dataset:
    random = np.random.default_rng(0)

    def part(count: int) -> Part:
        inputs = random.standard_normal((count, 96, 7), dtype=np.float32)
        return Part(inputs=inputs, targets=inputs[:, :24, 0].copy())

    parts = {"train": part(megabytes * MEGABYTE // (96 * 7 * 4)), "validation": part(64), "test": part(64)}
    return Dataset(task="forecast", kind="sequence", parts=parts, outputs=24, mean=0.0, std=1.0)


SETS: dict[str, Callable[[int], Dataset]] = {"images": images, "windows": windows}


# --- an epoch ---------------------------------------------------------------------------------------------------------


def measure(workload: Workload, contestant: Contestant, folder: Path) -> dict[str, float]:
    size = (folder / "train_inputs.npy").stat().st_size
    limit = size // 4 if contestant.streamed else 2 * size
    os.environ["TUNER_DATA_MEMORY_MB"] = str(limit / MEGABYTE)  # of the processes that are started
    with cached(folder) if contestant.cached else uncached(folder):
        epochs = together(cores(), train, workload, folder)
    return {
        "examples_per_second": sum(epoch.examples for epoch in epochs) / max(epoch.seconds for epoch in epochs),
        "cpu_microseconds": 1e6 * sum(epoch.cpu_seconds for epoch in epochs) / sum(epoch.examples for epoch in epochs),
        "own_megabytes": max(epoch.own_memory for epoch in epochs) / MEGABYTE,
        "file_megabytes": max(epoch.file_memory for epoch in epochs) / MEGABYTE,
    }


def train(start: Barrier, workload: Workload, folder: Path) -> Epoch:
    torch.set_num_threads(1)
    keep_freed_memory()
    info = data.info(folder)
    part = open_part(data.part(folder, "train"), info, torch.device("cpu"))
    generator = torch.Generator().manual_seed(os.getpid())
    model = materialise(build(workload.model, info), generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    loss = LOSSES[info.task]

    def learn(order: torch.Tensor) -> None:
        for inputs, targets in part.batches(BATCH, order):
            value = loss(model(inputs), targets)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    order = torch.randperm(len(part), generator=generator)[: int(workload.share * len(part))]
    learn(order[: 8 * BATCH])  # what is imported, allocated and chosen at first is not measured
    start.wait()
    with Memory() as memory:
        began, cpu = time.perf_counter(), time.process_time()
        learn(order)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return Epoch(
        examples=len(order), seconds=seconds, cpu_seconds=cpu_seconds, own_memory=memory.own, file_memory=memory.files
    )


class Memory:
    """The most memory that this process has, looked at 20 times a second."""

    own = files = 0  # bytes

    def __enter__(self) -> Memory:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            lines = map(str.split, Path("/proc/self/status").read_text().splitlines())
            kilobytes = {words[0]: int(words[1]) for words in lines if words[0] in ("RssAnon:", "RssFile:")}
            self.own = max(self.own, 1024 * kilobytes["RssAnon:"])
            self.files = max(self.files, 1024 * kilobytes["RssFile:"])


# --- what the system holds of the files -------------------------------------------------------------------------------


@contextmanager
def cached(folder: Path) -> Iterator[None]:
    for path in folder.glob("train_*.npy"):
        with path.open("rb") as stream:
            while stream.read(16 * MEGABYTE):
                pass
    yield


@contextmanager
def uncached(folder: Path) -> Iterator[None]:
    """Throws away what the system holds of the files, again and again, so that no more of them fits than is in use."""
    done = threading.Event()
    files = [os.open(path, os.O_RDONLY) for path in folder.glob("train_*.npy")]

    def evict() -> None:
        while True:
            for file in files:
                os.fsync(file)  # what is not written yet could not be thrown away
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            if done.wait(1 / EVICTIONS_A_SECOND):
                return

    evictor = threading.Thread(target=evict)
    evictor.start()
    try:
        yield
    finally:
        done.set()
        evictor.join()
        for file in files:
            os.close(file)


# --- showing ----------------------------------------------------------------------------------------------------------


def show(facts: dict[str, Any], measured: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    print(f"{listed(facts)}; medians (min-max)")
    print(f"\n{'':40}{'examples/s':>24}{'ratio':>20}{'CPU us':>20}{'ratio':>20}{'MB':>8}{'of files':>10}")
    for workload, contestants in measured.items():
        for name, rounds in contestants.items():
            cells = []
            for quantity, width in (("examples_per_second", 24), ("cpu_microseconds", 20)):
                values = [result[quantity] for result in rounds]
                bases = [result[quantity] for result in contestants[RESIDENT]]
                ratios = [value / base for value, base in zip(values, bases, strict=True)]
                cells.append(f"{spread(values, ',.0f'):>{width}}{spread(ratios, '.2f'):>20}")
            own, files = (max(result[kind] for result in rounds) for kind in ("own_megabytes", "file_megabytes"))
            print(f"{workload:16}{name:24}{''.join(cells)}{own:8.0f}{files:10.0f}")


if __name__ == "__main__":
    main()
