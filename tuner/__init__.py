"""tuner: hyperparameter tuning for PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.storage.optuna_storage import load_study
    from tuner.training.export import load_model

__all__ = ["load_model", "load_study"]


def __getattr__(name: str) -> Any:
    """Imports torch and optuna only where somebody asks for what needs them."""
    match name:
        case "load_model":
            from tuner.training.export import load_model

            return load_model
        case "load_study":
            from tuner.storage.optuna_storage import load_study

            return load_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
