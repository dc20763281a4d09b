"""Strict YAML 1.2 that remembers where every key stands.

Only what a study file needs: mappings with words for keys, lists, and the scalars of YAML's core schema (`1e-3` is a
number, `no` and `12:30` are words, `010` is ten). Anchors, aliases, tags and duplicate keys are faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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

from tuner.spec.faults import Path, dotted, printable

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


class UnreadableError(Exception):
    """Reading cannot go on; the last of the reader's faults says why."""


class Reader:
    """Turns the parser's events into plain values."""

    def __init__(self, place: Callable[[int], str]) -> None:
        self.places: dict[Path, str] = {}
        self.faults: dict[str, str] = {}
        self._place = place  # from a line's number, from 1
        self._events: Iterator[Any] = iter(())
        self._values = 0

    def read(self, text: str, at: Path) -> Any:
        """The value of one document, which stands at the path `at`. Raises UnreadableError."""
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
            self._fault(event, path, f"a tag ({printable(str(event.tag))}); leave it out")
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
            if not is_storable(key):
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
        if not is_storable(text):
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

    def _unreadable(self, line: int, path: Path, message: str) -> UnreadableError:
        self.faults[f"{self._place(line)}{_prefix(path)}"] = message.partition("\n")[0]
        return UnreadableError()


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


def is_storable(text: str) -> bool:
    """Neither PostgreSQL nor JSON readers take NUL or lone surrogates, which YAML's escapes can write."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
