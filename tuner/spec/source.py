"""Reading a study file: strict YAML 1.2 that remembers where every key stands.

Only what a study file needs: mappings with words for keys, lists, and the scalars of YAML's core schema (`1e-3` is a
number, `no` and `12:30` are words, `010` is ten). Anchors, aliases, tags and duplicate keys are faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from tuner.errors import InvalidSpec
from tuner.spec.faults import Fault, Path, dotted, printable, shown

MAX_BYTES = 1_000_000
MAX_VALUES = 5_000
MAX_DEPTH = 20

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_MAX_INTEGER = 2**63 - 1


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
    reader = _Reader(lambda line: f"{file}:{line}: ")
    try:
        document = reader.read(_text(file), at=())
    except _UnreadableError:
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
    if not equals or not all(path) or not _storable(key):
        source.faults[f"--set {printable(override)}: "] = "not an override; write --set training.epochs=2"
        return
    reader = _Reader(lambda _line: "--set ")
    try:
        value = reader.read(text, at=path)
    except _UnreadableError:
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


class _UnreadableError(Exception):
    """Reading cannot go on; the last of the reader's faults says why."""


class _Reader:
    """Turns the parser's events into plain values."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.places: dict[Path, str] = {}
        self.faults: dict[str, str] = {}
        self._place = place  # from a line's number, from 1
        self._events: Iterator[Any] = iter(())
        self._values = 0

    def read(self, text: str, at: Path) -> Any:
        """The value of one document, which stands at the path `at`. Raises _UnreadableError."""
        try:
            self._events = _events(text)
            next(self._events)  # the stream's start
            start = next(self._events)
            if isinstance(start, StreamEndEvent):
                return None
            value = self._value(next(self._events), at)
            next(self._events)  # the document's end
            extra = next(self._events)
            if isinstance(extra, DocumentStartEvent):
                raise self._unreadable(_line(extra), at, "a second document; a study file holds one")
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise self._unreadable(line, at, f"not YAML: {error.problem}") from None
        except YAMLError as error:
            raise self._unreadable(1, at, f"not YAML: {error}") from None
        return value

    def _value(self, event: Any, path: Path) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._unreadable(
                _line(event), path[:1], f"more than {MAX_VALUES} values; a study file has some dozens"
            )
        if len(path) > MAX_DEPTH:
            raise self._unreadable(
                _line(event), path[:1], f"nested more than {MAX_DEPTH} deep; a study file has a few levels"
            )
        if isinstance(event, AliasEvent):
            self._fault(event, path, "an alias (*); write the value out")
            return None
        if event.anchor is not None:
            self._fault(event, path, "an anchor (&); write values out where they are used")
        if event.tag is not None:
            self._fault(event, path, f"a tag ({event.tag}); leave it out")
        match event:
            case MappingStartEvent():
                return self._mapping(path)
            case SequenceStartEvent():
                return self._list(path)
            case _:
                return self._scalar(event, path)

    def _mapping(self, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise self._unreadable(_line(event), path, "a key that is not a word; write key: value")
            key = str(event.value)
            here = (*path, key)
            if event.anchor is not None:
                self._fault(event, here, "an anchor (&); write values out where they are used")
            if not _storable(key):
                self._fault(event, here, "a character that is not text; leave it out")
            if key in values:
                first = self.places[here].removesuffix(" ").removesuffix(":")
                self._fault(event, here, f"a second time; it stands at {first} already, leave one out")
                places, self.places = self.places, {}
                self._value(next(self._events), here)
                self.places = places
                continue
            self.places[here] = self._place(_line(event))
            values[key] = self._value(next(self._events), here)
        return values

    def _list(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            here = (*path, len(values))
            self.places[here] = self._place(_line(event))
            values.append(self._value(event, here))
        return values

    def _scalar(self, event: Any, path: Path) -> Any:
        text = str(event.value)
        plain = event.implicit[0]
        if not _storable(text):
            self._fault(event, path, "a character that is not text; leave it out")
            return None
        if plain and text in _WORDS:
            return _WORDS[text]
        if plain and _INTEGER.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            value = int(text, base) if len(text) <= len(str(_MAX_INTEGER)) + 1 else _MAX_INTEGER + 1
            if abs(value) > _MAX_INTEGER:
                self._fault(event, path, f"{text[:20]}... does not fit into 64 bits; write a smaller number")
                return None
            return value
        if plain and _FLOAT.fullmatch(text):
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if abs(number) == float("inf") or number != number:
                self._fault(event, path, f"{text[:20]} is not a finite number; write a finite one")
                return None
            return number
        return text

    def _fault(self, event: Any, path: Path, message: str) -> None:
        self.faults[f"{self._place(_line(event))}{_prefix(path)}"] = message

    def _unreadable(self, line: int, path: Path, message: str) -> _UnreadableError:
        self.faults[f"{self._place(line)}{_prefix(path)}"] = message.partition("\n")[0]
        return _UnreadableError()


def _events(text: str) -> Iterator[Any]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except (OverflowError, ValueError):  # ruamel.yaml does not look what \U stands for
        raise YAMLError("an escape (\\U) beyond Unicode") from None


def _line(event: Any) -> int:
    number: int = event.start_mark.line
    return number + 1


def _prefix(path: Path) -> str:
    return f"{dotted(path)}: " if path else ""


def _storable(text: str) -> bool:
    """Neither PostgreSQL nor JSON readers take NUL or lone surrogates, which YAML's escapes can write."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
