"""Prepared data on disk: made once, checked at every start, mapped into memory by all processes.

<cache>/digits-3f2a9c01d4e5/      one folder per configuration
    info.json                     DataInfo
    train_inputs.npy, train_targets.npy, validation_…, test_…     search opens test's for their sums only
    SHA256SUMS                    of all of these; `sha256sum -c SHA256SUMS` checks them
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.settings import Settings
from tuner.spec.config import DataConfig
from tuner.training.data.dataset import PARTS, DataInfo, Dataset, Part, PartName, check

FORMAT = 1  # raise it when prepared data changes for an unchanged configuration
LOCK_SECONDS = 3600.0  # longer than any download and preparation should take
INFO = "info.json"
SUMS = "SHA256SUMS"
ARRAYS = tuple(f"{part}_{array}.npy" for part in PARTS for array in ("inputs", "targets"))


def location(config: DataConfig, settings: Settings) -> Path:
    """Where the prepared data of a configuration stands or would stand."""
    document = {"format": FORMAT, "data": config.model_dump(mode="json")}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return settings.cache / f"{config.name}-{digest[:12]}"


def prepare(folder: Path, build: Callable[[], Dataset]) -> None:
    """Makes the folder unless it stands there whole; any number of processes may ask at once.

    A folder appears in one step (rename), so that one that exists was finished; every byte is checked all the same,
    and what was damaged since is built again. Raises DataError.
    """
    if _is_whole(folder):  # before the lock, so that a cache may be read-only
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(f".{folder.name}.lock"), timeout=LOCK_SECONDS):
            if not _is_whole(folder):
                _make(folder, build)
    except filelock.Timeout as error:
        raise DataError(f"another process has held {error.lock_file} for {LOCK_SECONDS:.0f} s; is it stuck?") from error
    except OSError as error:
        raise _cannot_write(Path(error.filename or folder), error) from error


def info(folder: Path) -> DataInfo:
    try:
        record = json.loads((folder / INFO).read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot read prepared data in {folder}: {error.strerror}; launch again to prepare it"
        ) from error
    return DataInfo(**{**record, "input_shape": tuple(record["input_shape"])})


def part(folder: Path, name: PartName) -> Part:
    """Read-only memory maps of one part, checked for their size only: `prepare` checks every byte."""
    return Part(inputs=_open(folder / f"{name}_inputs.npy"), targets=_open(folder / f"{name}_targets.npy"))


def _open(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:  # ValueError: shorter than its header says
        raise DataError(f"cannot read {path}: {error}; launch again to prepare it anew") from error
    return array


def _is_whole(folder: Path) -> bool:
    try:
        return (folder / SUMS).read_text() == _sums(folder, (*ARRAYS, INFO))
    except (OSError, UnicodeDecodeError):
        return False


def _sums(folder: Path, names: Sequence[str]) -> str:
    lines = []
    for name in names:
        with (folder / name).open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _make(folder: Path, build: Callable[[], Dataset]) -> None:
    """Called with the lock held, so the name of the unfinished folder may be fixed: what a kill left is swept here."""
    dataset = build()
    check(dataset)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        _write(dataset, unfinished)
        if folder.exists():
            shutil.rmtree(folder)  # what processes have mapped of it stays readable to them
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)  # on a full disk it would stand in the way
        raise


def _write(dataset: Dataset, folder: Path) -> None:
    """No fsync: what a power failure tears is noticed by its checksum and prepared again."""
    for name in PARTS:
        _save(folder / f"{name}_inputs.npy", dataset.parts[name].inputs)
        _save(folder / f"{name}_targets.npy", dataset.parts[name].targets)
    record = DataInfo(
        task=dataset.task,
        kind=dataset.kind,
        input_shape=dataset.parts["train"].inputs.shape[1:],
        outputs=dataset.outputs,
        mean=dataset.mean,
        std=dataset.std,
        sizes={name: len(dataset.parts[name].inputs) for name in PARTS},
        target_feature=dataset.target_feature,
        baselines=dataset.baselines,
        digest=hashlib.sha256(_sums(folder, ARRAYS).encode()).hexdigest(),
    )
    (folder / INFO).write_text(json.dumps(asdict(record), indent=2) + "\n")
    (folder / SUMS).write_text(_sums(folder, (*ARRAYS, INFO)))


def _save(path: Path, array: NDArray[Any]) -> None:
    try:
        np.save(path, np.ascontiguousarray(array), allow_pickle=False)
    except OSError as error:  # of a full disk numpy says neither the reason nor the path
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> DataError:
    reason = error.strerror or f"disk full? ({error})"
    return DataError(f"cannot write {path}: {reason}; make room, or let TUNER_HOME name another folder")
