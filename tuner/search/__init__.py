"""Search methods: from (space, history, seed, number) to a point. They do no input or output."""

from __future__ import annotations

from collections.abc import Callable

from tuner.search import grid, random, tpe
from tuner.search.history import History
from tuner.spec.search import Method, SearchConfig
from tuner.spec.space import Point, Space

Propose = Callable[[Space, History, int, int], Point]

SAMPLERS: dict[Method, Propose] = {"grid": grid.propose, "random": random.propose, "tpe": tpe.propose}
LEARNERS: frozenset[Method] = frozenset({"tpe"})  # look at the history; the others are functions of (seed, number)

__all__ = ["LEARNERS", "SAMPLERS", "History", "Propose", "proposes_alone"]


def proposes_alone(search: SearchConfig) -> bool:
    """Whether a point is proposed only once the one before it trains: no two are ever known that could join."""
    return search.method in LEARNERS and search.parallel_proposals == 1
