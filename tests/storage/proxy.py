"""Counts what a client asks of the server, and breaks its connection once, before or after a statement."""

from __future__ import annotations

from enum import Enum, auto

from tests.proxy import Proxy


class Cut(Enum):
    BEFORE = auto()  # the next query never reaches the server
    AFTER = auto()  # the next query is done, and its answer lost


class CountingProxy(Proxy):
    """`queries` counts what went through; `cut` breaks the next one."""

    def __init__(self, url: str) -> None:
        self.queries = 0
        self.cut: Cut | None = None
        super().__init__(url)

    def refuses(self, statement: str) -> bool:
        self.queries += 1
        return self._is_cut(Cut.BEFORE)

    def loses(self, statement: str) -> bool:
        return self._is_cut(Cut.AFTER)

    def _is_cut(self, moment: Cut) -> bool:
        if self.cut is not moment:
            return False
        self.cut = None
        return True
