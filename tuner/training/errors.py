"""What can be wrong with a model before it has seen any data."""

from __future__ import annotations

from tuner.errors import TunerError


class InfeasibleModel(TunerError):
    """No such model can be built or trained; the message says why in one line."""
