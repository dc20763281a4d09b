"""tuner: hyperparameter tuning for PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model", "load_study"]

# Imported when asked for: `tuner --help` needs neither torch nor optuna. By name, since an import statement here
# would let every module of the package seem to depend on them.
_LAZY = {"load_model": "tuner.training.export", "load_study": "tuner.storage.optuna_storage"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
