"""Workers in a few words: what they make of their machine, and what their idle slots wait for.

Functions of what was read: nothing is read and nothing printed here. Imported by commands when they run.
"""

from __future__ import annotations

from collections.abc import Iterable

from tuner.cli.output import duration, size
from tuner.cli.snapshot import Snapshot
from tuner.states import StudyState
from tuner.storage.workers import GpuUsage, WorkerRecord, WorkerState

ASKED_FOR = ("auto", "cuda")  # devices as they were asked for: the worker's children are not up yet
GAP = "  "


def lines(snapshot: Snapshot) -> list[str]:
    """A line for each worker, in columns, and behind those whose slots wait another with what they wait for."""
    rows = [(name_of(worker), _busy(worker), *use_of(worker)) for worker in snapshot.workers]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    told = []
    for worker, row in zip(snapshot.workers, rows, strict=True):
        told.append(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip())
        if reason := waits_for(worker, snapshot):
            told.append(f"{GAP}{reason}")
    return told


def in_words(worker: WorkerRecord, snapshot: Snapshot) -> str:
    """`2/2 slots; 1.9/2 cores; 612 MiB, 20.8 GiB free`."""
    return "; ".join(filter(None, (_busy(worker), *use_of(worker), waits_for(worker, snapshot))))


def name_of(worker: WorkerRecord) -> str:
    """`gpu-node-3:4711`: without the domain, which all share."""
    return f"{worker.host.partition('.')[0]}:{worker.pid}"


def use_of(worker: WorkerRecord) -> tuple[str, str, str]:
    """GPUs where it trains on them, processors, memory: nothing where that is not known, or not any more."""
    usage = worker.usage
    if usage is None or _is_silent(worker):
        return ("", "", "")
    gpus = "; ".join(map(_gpu, usage.gpus)) if worker.device.startswith("cuda") else ""
    cores = "" if usage.busy_cores is None else f"{usage.busy_cores:.1f}/{usage.cores} cores"
    memory = "" if usage.memory_bytes is None else size(usage.memory_bytes)
    if memory and usage.available_bytes is not None and not gpus:  # there the GPU's is what counts
        memory += f", {size(usage.available_bytes)} free"
    return (gpus, cores, memory)


def ranges(numbers: Iterable[int]) -> str:
    """Trials of a stack are many, and most of them neighbours.

    >>> ranges([7, 0, 1, 2, 3])
    '0-3, 7'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def waits_for(worker: WorkerRecord, snapshot: Snapshot) -> str | None:
    """What keeps slots of a worker idle; None where none is, or it is not known."""
    if worker.state is WorkerState.LOST:
        return f"lost, not heard of for {duration(worker.silent_seconds)}: others take its trials"
    if _is_silent(worker):
        return f"not heard of for {duration(worker.silent_seconds)}"
    idle = worker.slots - worker.busy
    reason = None
    if worker.device in ASKED_FOR:
        reason = "training processes are starting"
    elif snapshot.state in (StudyState.PAUSED, StudyState.STOPPING):
        reason = f"the study is {snapshot.state}"
    elif not snapshot.affordable and snapshot.running:
        last = len(snapshot.running)
        reason = "the last trial is running" if last == 1 else f"the last {last} trials are running"
    if idle <= 0 or reason is None:
        return None
    return f"{'1 slot waits' if idle == 1 else f'{idle} slots wait'}: {reason}"


def _is_silent(worker: WorkerRecord) -> bool:
    """Signs of life are missing: in half a lease there are two."""
    return worker.silent_seconds > worker.lease_seconds / 2


def _busy(worker: WorkerRecord) -> str:
    return f"{worker.busy}/{worker.slots} slots"


def _gpu(gpu: GpuUsage) -> str:
    """`GPU 71 %, 9.8 GiB of 79.6 GiB`."""
    words = [] if gpu.percent is None else [f"GPU {gpu.percent:.0f} %"]
    if gpu.memory_bytes is not None and gpu.total_bytes is not None:
        words.append(f"{size(gpu.memory_bytes)} of {size(gpu.total_bytes)}")
    return ", ".join(words)
