"""What is wrong with a study file: a fault names a key, says what is wrong and what would be right."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]  # ("training", "learning_rate", 0, "low")


@dataclass(frozen=True, kw_only=True)
class Fault:
    path: Path
    message: str
    involves: tuple[
        Path, ...
    ] = ()  # other keys that the fault rests on: where one of them is wrong, it may be no fault


def dotted(path: Path) -> str:
    """The path as a user writes it: `training.learning_rate[0].low`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{printable(step)}" for step in path)
    return text.removeprefix(".")


def flow(value: Any) -> str:
    """A value on one line of YAML: `{low: 1, high: 3}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value not in ("true", "false", "null"):
        return value
    return json.dumps(value)


def shown(value: Any) -> str:
    """A wrong value as a fault shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value) if isinstance(value, str) else flow(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant; a dotted one may be meant by its last part."""
    known = list(known)
    parts = [name for name in known if name.rpartition(".")[2] == word]
    return next(iter(parts or difflib.get_close_matches(word, known, n=1)), None)


def one_of(word: Any, known: Iterable[str]) -> str:
    """What would be right instead of a word that is none of the known ones."""
    known = list(known)
    meant = did_you_mean(word, known) if isinstance(word, str) else None
    return f"did you mean {meant}?" if meant else f"one of {', '.join(known)}"


def printable(key: str) -> str:
    """The key itself, escaped where it would break the line."""
    return key if key.isprintable() and key else repr(key)
