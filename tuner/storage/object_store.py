"""Artifacts in an object store, or whatever else fsspec reaches by a URL: `s3://bucket/prefix`, `gs://…`, `sftp://…`.

Training writes to a scratch folder of its process as it would to a shared one; files are uploaded from there and
fetched to it. An object appears whole or not at all, and the database's pointer moves only once it is there; whether
a checkpoint came through unharmed is told by its own checksum when it is loaded (`tuner.training.checkpoint`).

fsspec, and the package that knows the protocol, are imported for URLs only.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from tuner.errors import ArtifactError

# A password has no place in a URL that is shown in messages: `user:password@` (it may hold a slash), and `?key=…`.
_CREDENTIALS = re.compile(r"[^@]*:[^@]*@|.*\?")
_CHECKPOINT = re.compile(r"(?P<attempt>\d+)/(?P<epoch>\d+)\.ckpt")
_REASON_CHARACTERS = 300


class ObjectStore:
    def __init__(self, url: str, scratch: Path) -> None:
        """Reaches for nothing yet. `scratch` is where processes of this machine have their scratch folders.

        Raises ArtifactError for a URL with credentials, of an unknown protocol, or of one whose package is missing.
        """
        self._fs, self._base = _file_system(url)
        self.place = url.rstrip("/")  # as users know it
        self._scratch = scratch

    @cached_property
    def root(self) -> Path:
        """This process's scratch folder, removed when it ends. Raises ArtifactError."""
        try:
            folder, self._lock = _own_folder(self._scratch)
        except OSError as error:
            raise ArtifactError(f"cannot write to the scratch folder {self._scratch}: {error.strerror}") from error
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def check_writable(self) -> None:
        """Writes an object and removes it.

        Raises ArtifactError with the place and the reason: no credentials, no such bucket, no right, disk full.
        """
        probe = f".writable-{uuid4().hex}"
        with _explained(f"write to the scratch folder {self.root}"):
            (self.root / probe).write_bytes(b"\0" * 4096)
        with _explained(f"write to the artifacts at {self.place}"):
            self._upload(probe)
            self._fs.rm_file(self._remote(probe))
        (self.root / probe).unlink()

    def push(self, stored: str) -> None:
        """Uploads a file of the scratch folder. Raises ArtifactError."""
        with _explained(f"write {self.place}/{stored}"):
            self._upload(stored)

    def _upload(self, stored: str) -> None:
        local, remote = str(self.root / stored), self._remote(stored)
        if self._fs.async_impl:  # object stores: they have no folders, and what is not complete is not seen
            self._fs.put_file(local, remote)
            return
        folder, _, name = remote.rpartition("/")
        unfinished = f"{folder}/.{name}.{uuid4().hex}.unfinished"
        self._fs.makedirs(folder, exist_ok=True)
        self._fs.put_file(local, unfinished)
        self._fs.mv(unfinished, remote)

    def local(self, stored: str) -> Path:
        """The path on this machine of a new copy of a file; nothing is there where it is missing.

        Raises ArtifactError.
        """
        if PurePosixPath(stored).is_absolute() or ".." in PurePosixPath(stored).parts:
            raise ArtifactError(f"{stored} lies outside of the artifacts at {self.place}")
        local = self.root / stored
        unfinished = local.with_name(f".{local.name}.unfinished")
        with _explained(f"read {self.place}/{stored}"):
            local.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._fs.get_file(self._remote(stored), str(unfinished))
                unfinished.replace(local)
            except FileNotFoundError:
                local.unlink(missing_ok=True)
            finally:
                unfinished.unlink(missing_ok=True)
        return local

    def fetch(self, stored: str) -> Path:
        """A copy of the file behind a path that the database stores; it lives as long as this store.

        Raises ArtifactError where it is missing or cannot be read.
        """
        local = self.local(stored)
        if not local.is_file():
            raise ArtifactError(
                f"{self.place}/{stored} is missing; is {self.place} the place that the workers use (TUNER_ARTIFACTS)?"
            )
        return local

    def sweep(self, stored: str) -> None:
        """Removes what is of no more use once the database points to the checkpoint `stored`.

        That is all that earlier attempts left but their logs, and this one's earlier epochs. What cannot be removed
        now is left to a later sweep, or to `remove_study`.
        """
        kept = PurePosixPath(stored)
        pointed = (int(kept.parent.name), int(kept.stem))
        trial = self._remote(str(kept.parent.parent))
        with contextlib.suppress(ArtifactError), _explained(f"sweep {self.place}/{kept.parent.parent}"):
            self._fs.invalidate_cache()
            for found in self._fs.find(trial):
                checkpoint = _CHECKPOINT.fullmatch(found.rpartition(f"{trial}/")[2])
                if checkpoint and (int(checkpoint["attempt"]), int(checkpoint["epoch"])) < pointed:
                    self._fs.rm_file(found)

    def find_study(self, study: str) -> str | None:
        """Where a study's files are, as users know the place; None where there are none. Raises ArtifactError."""
        with _explained(f"read {self.place}/{study}"):
            self._fs.invalidate_cache()
            return f"{self.place}/{study}" if self._fs.exists(self._remote(study)) else None

    def remove_study(self, study: str) -> None:
        """Removes all files of a study.

        Raises ArtifactError.
        """
        with _explained(f"remove {self.place}/{study}"):
            self._fs.invalidate_cache()
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm(self._remote(study), recursive=True)

    def _remote(self, stored: str) -> str:
        return f"{self._base}/{stored}"


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    protocol, _, rest = url.partition("://")
    if _CREDENTIALS.match(rest):
        raise ArtifactError(
            "the URL in TUNER_ARTIFACTS must not hold credentials; leave them to the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, …)"
        )
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import get_filesystem_class, known_implementations
    except ImportError as error:
        raise ArtifactError(f"{url} needs the package fsspec: pip install 'tuner-hpo[object-store]'") from error
    if protocol not in known_implementations:
        raise ArtifactError(f"{url}: nothing is known of {protocol}://; give a folder, s3://bucket/prefix or gs://…")
    if not rest.strip("/"):
        raise ArtifactError(f"{url} names no place; give {protocol}://bucket/prefix")
    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None)
        what_to_do = f"pip install {missing}" if missing else str(error)
        raise ArtifactError(f"{url} needs a package that is not installed: {what_to_do}") from error
    with _explained(f"use {url}"):
        file_system, path = url_to_fs(url)
        return file_system, path.rstrip("/")


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Makes one line of whatever a file system raises: each has a tree of errors of its own."""
    try:
        yield
    except Exception as error:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        reason = re.sub(r"\?\S*", "", " ".join(text.split()))  # signatures stand in the queries of URLs
        raise ArtifactError(f"cannot {what}: {reason[:_REASON_CHARACTERS]}") from error


def _own_folder(parent: Path) -> tuple[Path, FileLock]:
    """A new folder, and the lock that says that its process lives; what killed processes left is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / ".lock"):
        for left in parent.glob("*/"):
            with contextlib.suppress(Timeout), FileLock(left / ".lock", blocking=False):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        lock = FileLock(folder / ".lock", thread_local=False)
        lock.acquire()
        return folder, lock
