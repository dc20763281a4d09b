"""The file of a checkpoint: either whole or refused. What is in it is the training's own affair.

A file is MAGIC, the sha256 of the rest, and the rest; neither torch nor a file system notices a flipped bit.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tuner.errors import ArtifactError

MAGIC = b"tuner checkpoint 1\n"
DIGEST_BYTES = hashlib.sha256().digest_size


def write(path: Path, payload: bytes | memoryview) -> None:
    """Writes a file that appears whole or not at all; another one of that name stays until then.

    Raises ArtifactError, with the path, where the disk is full or the folder cannot be written.
    """
    parts = (MAGIC, hashlib.sha256(payload).digest(), payload)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(path, *parts)
        except FileNotFoundError:  # whoever goes on with this trial has swept the folder: that is no fault of the disk
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, *parts)
    except OSError as error:
        raise ArtifactError(f"cannot write the checkpoint {path}: {error.strerror}") from error


def read(path: Path) -> memoryview:
    """What was written. Raises ArtifactError for a file that is missing, damaged or no checkpoint."""
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if content[: len(MAGIC)] != MAGIC:
        raise ArtifactError(f"{path} is no checkpoint of this version of tuner")
    start = len(MAGIC) + DIGEST_BYTES
    if hashlib.sha256(content[start:]).digest() != content[len(MAGIC) : start]:
        raise ArtifactError(f"the checkpoint {path} is damaged: its checksum does not match")
    return content[start:]


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Writes beside `path` and renames once the bytes are on the disk. Raises OSError, leaving nothing behind."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
