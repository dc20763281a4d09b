"""Where files of public data sets come from: the user's folder, earlier downloads, public mirrors."""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tuner.errors import DataError
from tuner.settings import Settings

TIMEOUT_SECONDS = 20.0  # without a byte from a mirror
MAX_DOWNLOAD_BYTES = 256 * 2**20
DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # what gzip.decompress raises


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A published file; on disk it may be gzipped, under its name with `.gz`."""

    folder: str  # below TUNER_DATA, and below the cache's folder of downloads
    name: str
    sha256: str  # of the uncompressed bytes
    mirrors: tuple[str, ...]  # URLs, tried in turn; one that ends in .gz serves the file gzipped


def read_sources(files: Sequence[SourceFile], settings: Settings) -> list[bytes]:
    """The uncompressed, verified bytes of each file, downloaded where they are not at hand.

    Raises DataError for a damaged file, and, where the network does not help, one that says which files to put where.
    """
    folders = [settings.data] if settings.data else []
    downloads = settings.cache / "downloads"
    folders.append(downloads)
    paths = [_find(file, folders) for file in files]
    for index, file in enumerate(files):
        if paths[index] is None:
            try:
                paths[index] = _download(file, downloads / file.folder)
            except DataError as failure:
                missing = [file.name for file, path in zip(files, paths, strict=True) if path is None]
                raise DataError(_advice(file.folder, missing, settings, failure)) from None
    return [_read(file, path) for file, path in zip(files, paths, strict=True) if path is not None]


def _find(file: SourceFile, folders: Sequence[Path]) -> Path | None:
    candidates = (folder / file.folder / name for folder in folders for name in (file.name, f"{file.name}.gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read(file: SourceFile, path: Path) -> bytes:
    way_out = "replace it, or delete it to have it downloaded"
    try:
        content = _unpack(path.read_bytes(), path.name)
    except DAMAGED_GZIP as error:
        raise DataError(f"{path} is damaged: not a whole gzip file ({error}); {way_out}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(f"{path} is damaged: sha256 of its contents is {found}, expected {file.sha256}; {way_out}")
    return content


def _unpack(content: bytes, name: str) -> bytes:
    return gzip.decompress(content) if name.endswith(".gz") else content


def _download(file: SourceFile, folder: Path) -> Path:
    """Stores the first mirror's good copy, as served, and returns its path; DataError says why the last one failed."""
    reason = "no mirror is known"
    for url in file.mirrors:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                content = response.read(MAX_DOWNLOAD_BYTES)
            found = hashlib.sha256(_unpack(content, url)).hexdigest()
        except (*DAMAGED_GZIP, OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
            reason = f"{url}: {getattr(error, 'reason', None) or error}"
            continue
        if found == file.sha256:
            path = folder / (f"{file.name}.gz" if url.endswith(".gz") else file.name)
            _store(path, content)
            return path
        reason = f"{url} serves other contents: sha256 {found}, expected {file.sha256}"
    raise DataError(reason)


def _store(path: Path, content: bytes) -> None:
    """Writes under another name first: another process may be downloading the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _advice(folder: str, missing: Sequence[str], settings: Settings, failure: DataError) -> str:
    place = settings.data / folder if settings.data else f"$TUNER_DATA/{folder}"
    choice = "" if settings.data else ", TUNER_DATA being a folder of your choice"
    files = "it" if len(missing) == 1 else "them"
    return (
        f"{folder}: {', '.join(missing)} not found, and the download failed ({failure}); "
        f"put {files} into {place}/, gzipped or not{choice}"
    )
