"""A study file's text with its overrides, and where each key of it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from tuner.errors import InvalidSpec
from tuner.spec.faults import Fault, Path, dotted, printable, shown
from tuner.spec.yaml_reader import Reader, UnreadableError, is_storable

MAX_BYTES = 1_000_000


@dataclass(kw_only=True)
class Source:
    """A study file's contents, and what begins the line of a fault at each key: `file.yaml:12: ` or `--set `."""

    root: str  # where a fault is that has no place of its own
    document: dict[str, Any]
    places: dict[Path, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)  # found while reading: where a line begins, its message

    def lines(self, faults: Iterable[Fault]) -> list[str]:
        """All faults, one line each, in the order of the file; one fault a key."""
        order = {path: number for number, path in enumerate(self.places)}
        lines = dict(self.faults)
        for fault in sorted(faults, key=lambda fault: order.get(self._placed(fault.path), -1)):
            lines.setdefault(self._where(fault.path), fault.message)
        return [where + message for where, message in lines.items()]

    def _where(self, path: Path) -> str:
        return f"{self.places.get(self._placed(path), self.root)}{dotted(path)}: "

    def _placed(self, path: Path) -> Path:
        """The key itself, or the nearest one around it that has a place."""
        while path and path not in self.places:
            path = path[:-1]
        return path


def read_source(file: FilePath, overrides: Sequence[str] = ()) -> Source:
    """The file with its overrides (`training.epochs=2`) in place.

    Raises InvalidSpec for what is no mapping in YAML at all; lesser faults are collected in the source.
    """
    reader = Reader(lambda line: f"{file}:{line}: ")
    try:
        document = reader.read(_text(file), at=())
    except UnreadableError:
        raise InvalidSpec([where + message for where, message in reader.faults.items()]) from None
    if not isinstance(document, dict):
        raise InvalidSpec([f"{file}:1: the file holds {shown(document)}; it needs keys such as study, data and model"])
    source = Source(root=f"{file}:1: ", document=document, places=reader.places, faults=reader.faults)
    for override in overrides:
        _set(source, override)
    return source


def _text(file: FilePath) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InvalidSpec([f"{file}: no such file"]) from None
    except IsADirectoryError:
        raise InvalidSpec([f"{file}: a folder; name a study file in it"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidSpec([f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    if len(content) > MAX_BYTES:
        raise InvalidSpec([f"{file}: larger than {MAX_BYTES // 1_000_000} MB; a study file has some dozen lines"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidSpec([f"{file}:{line}: not UTF-8; save the file as UTF-8 text"]) from None


def _set(source: Source, override: str) -> None:
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path) or not is_storable(key):
        source.faults[f"--set {printable(override)}: "] = "not an override; write --set training.epochs=2"
        return
    reader = Reader(lambda _line: "--set ")
    try:
        value = reader.read(text, at=path)
    except UnreadableError:
        return
    finally:
        source.faults |= reader.faults
    here = source.document
    for length, step in enumerate(path[:-1], start=1):
        if not isinstance(here.get(step), dict):
            here[step] = {}
            source.places[path[:length]] = "--set "
        here = here[step]
    here[path[-1]] = value
    replaced = [place for place in source.places if place[: len(path)] == path]
    for place in replaced:
        del source.places[place]
    source.places |= {path: "--set ", **reader.places}
