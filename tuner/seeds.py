"""Every random number of a study follows from a hash of where it is used.

Nothing depends on how many numbers were drawn before, so that trials may run in any order, on any worker,
and be resumed anywhere.
"""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed of 32 bits (all that a CPU generator of torch or numpy's legacy one takes) from a path of parts.

    >>> derive_seed(0, 7, "sampler") == derive_seed(0, 7, "sampler")
    True
    >>> derive_seed(0, 7, "order", 1) == derive_seed(0, 7, "order", 2)
    False
    """
    path = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big")
