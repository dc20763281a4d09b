"""Where checkpoints and logs are: below a folder that all workers share, or in an object store.

    <study's folder>/<trial_id>/<attempt>.log
    <study's folder>/<trial_id>/<attempt>/<epoch>.ckpt

A study's folder is a UUID from the database and the rest are numbers: nothing that a user wrote becomes a path, two
databases may share a place, and no two attempts write the same file. The database stores paths relative to the place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import ArtifactError
from tuner.settings import Settings
from tuner.storage.object_store import ObjectStore


@dataclass(frozen=True, kw_only=True)
class TrialArtifacts:
    """The files of one trial."""

    root: Path  # of the store
    study: str  # the study's folder
    trial_id: int

    @property
    def folder(self) -> Path:
        return self.root / self.study / str(self.trial_id)

    def log(self, attempt: int) -> Path:
        return self.folder / f"{attempt}.log"

    def attempt(self, attempt: int) -> Path:
        """The folder of an attempt's checkpoints: no other attempt writes there."""
        return self.folder / str(attempt)

    def relative(self, file: Path) -> str:
        """A file's path as the database stores it."""
        return file.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class ArtifactFolder:
    """A folder that all workers share: what the training writes there is where it stays."""

    root: Path

    @property
    def place(self) -> str:
        """As users know it."""
        return str(self.root)

    def check_writable(self) -> None:
        """Makes the folder where it is missing and writes a file to it.

        Raises ArtifactError with the path and the reason: no right to write, disk full, not a folder.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=".writable-") as file:
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArtifactError(f"cannot write to the artifacts folder {self.root}: {error.strerror}") from error

    def local(self, stored: str) -> Path:
        """The path on this machine of a file; nothing is there where it is missing."""
        return self.root / stored

    def fetch(self, stored: str) -> Path:
        """The file behind a path that the database stores.

        Raises ArtifactError where it is missing, or lies outside of the folder, a symlink's target included.
        """
        path = self.local(stored)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ArtifactError(f"{stored} lies outside of the artifacts folder {self.root}")
        if not path.is_file():
            raise ArtifactError(
                f"{path} is missing; is {self.root} the artifacts folder that the workers use (TUNER_ARTIFACTS)?"
            )
        return path

    def sweep(self, stored: str) -> None:
        """Removes what is of no more use once the database points to the checkpoint `stored`.

        That is all that earlier attempts left but their logs, and this one's earlier epochs. What cannot be removed
        now is left to a later sweep, or to `remove_study`.
        """
        kept = self.root / stored
        attempt = kept.parent
        with contextlib.suppress(OSError):
            for folder in _folders(attempt.parent):
                if folder.name.isdigit() and int(folder.name) < int(attempt.name):
                    shutil.rmtree(folder, ignore_errors=True)
            for file in attempt.glob("*.ckpt"):
                if file.stem.isdigit() and int(file.stem) < int(kept.stem):
                    file.unlink()

    def find_study(self, study: str) -> str | None:
        """Where a study's files are, as users know the place; None where there are none."""
        folder = self.root / study
        return str(folder) if folder.is_dir() else None

    def remove_study(self, study: str) -> None:
        """Removes all files of a study.

        Raises ArtifactError.
        """
        for is_again in (False, True):
            try:
                shutil.rmtree(self.root / study)
            except FileNotFoundError:
                return
            except OSError as error:
                if is_again or error.errno != errno.ENOTEMPTY:  # a training that has just ended wrote one more file
                    raise ArtifactError(f"cannot remove {error.filename}: {error.strerror}") from error


ArtifactStore = ArtifactFolder | ObjectStore


def open_store(settings: Settings) -> ArtifactStore:
    """The place that TUNER_ARTIFACTS names. Raises ArtifactError where its URL cannot be used."""
    if settings.artifact_url is None:
        return ArtifactFolder(settings.artifacts)
    return ObjectStore(settings.artifact_url, settings.scratch)


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []
