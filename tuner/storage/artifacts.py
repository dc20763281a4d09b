"""Where checkpoints and logs are, below the artifacts folder that all workers share.

    <study_id>/<trial_id>/log.txt
    <study_id>/<trial_id>/<attempt>/<epoch>.ckpt

Folders are named by numbers from the database: nothing that a user wrote becomes a path. The database stores paths
relative to the artifacts folder.
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
    study_id: int
    trial_id: int

    @property
    def folder(self) -> Path:
        return self.root / str(self.study_id) / str(self.trial_id)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def attempt(self, attempt: int) -> Path:
        """The folder of an attempt's checkpoints: no other attempt writes there."""
        return self.folder / str(attempt)

    def relative(self, checkpoint: Path) -> str:
        """A checkpoint's path as the database stores it."""
        return checkpoint.relative_to(self.root).as_posix()

    def sweep(self, attempt: int, checkpoint: str | None) -> None:
        """Removes what attempts before this one left, except the checkpoint that the database points to.

        Files that are in use or gone already are passed over: the next sweep, or the study's end, removes them.
        """
        kept = None if checkpoint is None else self.root / checkpoint
        for folder in _folders(self.folder):
            if folder.name.isdigit() and int(folder.name) < attempt:
                for file in folder.iterdir():
                    if file != kept:
                        with contextlib.suppress(OSError):
                            file.unlink()
                with contextlib.suppress(OSError):  # not empty: it holds the checkpoint
                    folder.rmdir()


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


def remove_study(root: Path, study_id: int) -> None:
    """Removes all files of a study.

    Raises ArtifactError.
    """
    try:
        shutil.rmtree(root / str(study_id))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ArtifactError(f"cannot remove {error.filename}: {error.strerror}") from error


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []
