"""What differs between two documents of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.spec.faults import flow


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each key that differs, in the order of the new document.

    >>> difference({"training": {"epochs": 20}}, {"training": {"epochs": 30}})
    ['training.epochs: 20 -> 30']
    """
    return list(_lines(old, new, ""))


def _lines(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> list[str]:
    lines = []
    for key in {**new, **old}:
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += _lines(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {_shown(before)} -> {_shown(after)}")
    return lines


_ABSENT = object()


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT or value is None else flow(value)
