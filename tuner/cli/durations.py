"""Lengths of time on the command line."""

from __future__ import annotations

import re

import click

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """The type of an option that takes a length of time; gives seconds.

    >>> [duration(text) for text in ("90", "90s", "1.5m", "2h", "1d")]
    [90.0, 90.0, 90.0, 7200.0, 86400.0]
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not seconds:
        raise click.BadParameter(f"{text!r} is not a length of time; write 90s, 30m, 2h or 1d.")
    return seconds
