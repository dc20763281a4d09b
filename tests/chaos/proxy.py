"""Stands between workers and their database, and loses answers to what has been committed already."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter

from tests.proxy import Proxy

# What a statement is, by a mark of its own, and how large a share of its answers is lost: the rare ones more often.
KINDS = {
    "claims": (r"SKIP LOCKED", 0.5),
    "points": (r"INSERT INTO trial_params", 0.5),
    "ends": (r"finish_seq = ", 0.5),
    "reports": (r"INSERT INTO trial_intermediate_values", 0.1),
    "renewals": (r"UPDATE tuner.worker SET last_seen", 0.5),
    "give-backs": (r"lease_until = NULL", 0.5),
}


class LosingProxy(Proxy):
    """While `cuts_left` is above zero it loses answers at random."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.cuts_left = 0
        self.cut: Counter[str] = Counter()
        self._rng = rng
        self._lock = threading.Lock()
        super().__init__(url)

    def loses(self, statement: str) -> bool:
        kind, share = next(
            ((kind, share) for kind, (mark, share) in KINDS.items() if re.search(mark, statement)), ("", 0)
        )
        with self._lock:
            if self.cuts_left <= 0 or self._rng.random() >= share:
                return False
            self.cuts_left -= 1
            self.cut[kind] += 1
            return True
