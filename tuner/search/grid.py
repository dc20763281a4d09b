"""Grid search: the trial's number is its place in a permutation of the grid that follows from the seed.

A budget smaller than the grid is then a fair sample of it, and no point is ever proposed twice.
"""

from __future__ import annotations

from tuner.search.history import History
from tuner.seeds import derive_seed
from tuner.spec.grid import Grid
from tuner.spec.space import Point, Space

_ROUNDS = 6


def propose(space: Space, history: History, seed: int, number: int) -> Point:
    """The grid's point for this number; `history` is not looked at.

    Raises IndexError where the number is not below the size of the grid.
    """
    grid = Grid(space)
    if not 0 <= number < grid.size:
        raise IndexError(f"trial {number} is outside the grid of {grid.size} points")
    return grid.point(permuted(number, grid.size, seed))


def permuted(index: int, size: int, seed: int) -> int:
    """Where `index` goes in a pseudo-random permutation of range(size).

    A Feistel network over the next even number of bits, walked until it lands below `size` (Black and Rogaway 2002,
    "Ciphers with Arbitrary Finite Domains"): no list of the grid is ever made.

    >>> sorted(permuted(index, 10, seed=3) for index in range(10)) == list(range(10))
    True
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for round_ in range(_ROUNDS):
            left, right = right, left ^ (_mix(seed, round_, right, half) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(seed: int, round_: int, value: int, bits: int) -> int:
    words = -(-bits // 32)  # a hash gives 32 bits
    return sum(derive_seed(seed, "grid", round_, value, word) << (32 * word) for word in range(words))
