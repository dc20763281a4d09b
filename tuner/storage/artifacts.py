"""Where checkpoints and logs are, below the artifacts folder that all workers share.

    <study's folder>/<trial_id>/log.txt
    <study's folder>/<trial_id>/<attempt>/<epoch>.ckpt

A study's folder is a UUID from the database and the rest are numbers: nothing that a user wrote becomes a path, and
two databases may share a folder. The database stores paths relative to the artifacts folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class TrialArtifacts:
    """The files of one trial."""

    root: Path  # the artifacts folder
    study: str  # the study's folder
    trial_id: int

    @property
    def folder(self) -> Path:
        return self.root / self.study / str(self.trial_id)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def attempt(self, attempt: int) -> Path:
        """The folder of an attempt's checkpoints: no other attempt writes there."""
        return self.folder / str(attempt)

    def relative(self, checkpoint: Path) -> str:
        """A checkpoint's path as the database stores it."""
        return checkpoint.relative_to(self.root).as_posix()

    def sweep(self, attempt: int, checkpoint: str) -> None:
        """Removes what is of no more use once the database points to this attempt's `checkpoint`.

        That is all that earlier attempts left, and this one's earlier epochs. What cannot be removed now is left to
        a later sweep, or to `remove_study`.
        """
        with contextlib.suppress(OSError):
            for folder in _folders(self.folder):
                if folder.name.isdigit() and int(folder.name) < attempt:
                    shutil.rmtree(folder, ignore_errors=True)
            kept = self.root / checkpoint
            for file in kept.parent.glob("*.ckpt"):
                if file.stem.isdigit() and int(file.stem) < int(kept.stem):
                    file.unlink()


def resolve(root: Path, stored: str) -> Path:
    """The file behind a path that the database stores.

    Raises ArtifactError where it is missing, or lies outside of the artifacts folder, a symlink's target included.
    """
    path = root / stored
    if not path.resolve().is_relative_to(root.resolve()):
        raise ArtifactError(f"{stored} lies outside of the artifacts folder {root}")
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing; is {root} the artifacts folder that the workers use (TUNER_ARTIFACTS)?"
        )
    return path


def check_writable(root: Path) -> None:
    """Makes the artifacts folder where it is missing and writes a file to it.

    Raises ArtifactError with the path and the reason: no right to write, disk full, not a folder.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=".writable-") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ArtifactError(f"cannot write to the artifacts folder {root}: {error.strerror}") from error


def remove_study(root: Path, study: str) -> None:
    """Removes all files of a study.

    Raises ArtifactError.
    """
    try:
        shutil.rmtree(root / study)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ArtifactError(f"cannot remove {error.filename}: {error.strerror}") from error


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []
