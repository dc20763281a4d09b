"""Search methods: from (space, history, seed, number) to a point. They do no input or output."""

from __future__ import annotations

from collections.abc import Callable

from tuner.search import grid, random, tpe
from tuner.search.history import History
from tuner.spec.search import Method
from tuner.spec.space import Point, Space

Propose = Callable[[Space, History, int, int], Point]

SAMPLERS: dict[Method, Propose] = {"grid": grid.propose, "random": random.propose, "tpe": tpe.propose}
LEARNERS: frozenset[Method] = frozenset({"tpe"})  # look at the history; the others are functions of (seed, number)

__all__ = ["LEARNERS", "SAMPLERS", "History", "Propose"]
