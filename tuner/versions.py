"""The versions of what a result depends on, recorded with every study."""

from __future__ import annotations

import platform
from importlib.metadata import version

DISTRIBUTIONS = {"tuner": "tuner-hpo", "torch": "torch", "optuna": "optuna", "numpy": "numpy"}


def release(version: str) -> str:
    """What must be the same for trials to be: the minor release, since 0.x may change meaning in each.

    >>> release("0.1.7")
    '0.1'
    """
    return ".".join(version.split(".")[:2])


def versions() -> dict[str, str]:
    """Read from the installed metadata: nothing is imported for it."""
    return {"python": platform.python_version()} | {name: version(found) for name, found in DISTRIBUTIONS.items()}
