"""The grid of a space: counted exactly and indexed without being listed, however many points it has.

Entries are taken in order. What the entries behind one make of its value depends only on the conditions that they
have on it, so values are grouped by those conditions, and points are counted by (entry, state), where the state is
what the conditions still to come need to know. In a space without conditions that is one product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.spec.space import Choices, Domain, Entry, FloatRange, IntRange, Parameter, Point, Space, Value

State = frozenset[tuple[str, Value]]  # of knobs that later conditions name: one of the values they cannot tell apart

Asked = dict[str, tuple[tuple[Value, ...], ...]]  # by path: the values that satisfy each condition


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Values of an entry behind which the space goes on in the same way."""

    values: Sequence[Value]
    state: State  # of the entry behind


class Grid:
    """The points of a space, each exactly once, by an index from 0 to `size` - 1."""

    def __init__(self, space: Space) -> None:
        self._entries = space.entries
        self._groups: list[dict[State, list[_Group]]] = []
        states = {State()}
        for entry, asked in zip(self._entries, _asked_behind(self._entries), strict=True):
            groups = {state: _groups(entry, state, asked) for state in states}
            self._groups.append(groups)
            states = {group.state for found in groups.values() for group in found}
        self._counts: list[dict[State, int]] = [dict.fromkeys(states, 1)]
        for groups in reversed(self._groups):
            behind = self._counts[0]
            counts = {
                state: sum(len(group.values) * behind[group.state] for group in found)
                for state, found in groups.items()
            }
            self._counts.insert(0, counts)

    @property
    def unlisted(self) -> tuple[Parameter, ...]:
        """Ranges of real numbers with neither `points` nor `step`: they make no grid."""
        return tuple(entry for entry in self._entries if isinstance(entry, Parameter) and not values(entry.domain))

    @property
    def size(self) -> int:
        """Points in all; 0 where a parameter is unlisted. Unlike `len` it may be beyond 2^63."""
        return self._counts[0][State()]

    def point(self, index: int) -> Point:
        """Raises IndexError outside of 0 to `size` - 1."""
        if not 0 <= index < self.size:
            raise IndexError(f"point {index} of a grid of {self.size}")
        point: Point = {}
        state = State()
        for place, entry in enumerate(self._entries):
            counts = self._counts[place + 1]
            for group in self._groups[place][state]:
                within = len(group.values) * counts[group.state]
                if index < within:
                    break
                index -= within
            number, index = divmod(index, counts[group.state])
            if isinstance(entry, Parameter) and _is_active(entry, state):
                point[entry.name] = group.values[number]
            state = group.state
        return point


def values(domain: Domain) -> Sequence[Value]:
    """What a grid tries of a domain; nothing of an unlisted one."""
    match domain:
        case Choices(choices=choices):
            return choices
        case IntRange(low=low, high=high, step=step, points=None):
            return range(low, high + 1, step)
        case IntRange(low=low, step=step):
            return tuple(dict.fromkeys(low + step * round((value - low) / step) for value in _spaced(domain)))
        case FloatRange(points=None, step=None):
            return ()
        case FloatRange(low=low, high=high, points=None, step=float(step)):
            return _Steps(low, high, step)
        case FloatRange(low=low, high=high, step=None):
            return tuple(dict.fromkeys(min(max(value, low), high) for value in _spaced(domain)))
        case FloatRange(low=low, high=high, step=float(step)):
            steps = _Steps(low, high, step)
            return tuple(dict.fromkeys(steps[round((value - low) / step)] for value in _spaced(domain)))
        case _:
            raise TypeError(domain)


def _spaced(domain: IntRange | FloatRange) -> Iterator[float]:
    """`points` values from low to high, evenly spaced (in the logarithm)."""
    last = (domain.points or 1) - 1
    for number in range(last + 1):
        share = number / last
        if number in (0, last):
            yield domain.high if number else domain.low
        elif domain.log:
            yield _rounded(math.exp((1 - share) * math.log(domain.low) + share * math.log(domain.high)), digits=12)
        else:
            yield _rounded((1 - share) * domain.low + share * domain.high, digits=12)


class _Steps(Sequence[float]):
    """low, low + step, ..., high: not listed, for there may be very many."""

    def __init__(self, low: float, high: float, step: float) -> None:
        self._low, self._high, self._step = low, high, step
        self._length = round((high - low) / step) + 1

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> float:  # type: ignore[override]  # nobody slices it
        if not 0 <= place < self._length:
            raise IndexError(place)
        return self._high if place == self._length - 1 else _rounded(self._low + place * self._step, digits=15)


class _Rest(Sequence[Value]):
    """All but the values at some places, which are in ascending order."""

    def __init__(self, all_values: Sequence[Value], left_out: Sequence[int]) -> None:
        self._all, self._left_out = all_values, left_out

    def __len__(self) -> int:
        return len(self._all) - len(self._left_out)

    def __getitem__(self, place: int) -> Value:  # type: ignore[override]  # nobody slices it
        for gap in self._left_out:
            place += gap <= place
        return self._all[place]


def _asked_behind(entries: Sequence[Entry]) -> Sequence[Asked]:
    """For each entry, what the conditions of those behind it ask."""
    asked: Asked = {}
    behind = []
    for entry in reversed(entries):
        behind.append(asked)
        asked = dict(asked)
        for condition in entry.when:
            asked[condition.path] = (*asked.get(condition.path, ()), condition.values)
    return behind[::-1]


def _groups(entry: Entry, state: State, asked: Asked) -> list[_Group]:
    kept = State((path, value) for path, value in state if path in asked)
    if not _is_active(entry, state):
        return [_Group(values=(None,), state=kept)]
    possible = values(entry.domain) if isinstance(entry, Parameter) else (entry.value,)
    if entry.path not in asked:
        return [_Group(values=possible, state=kept)]
    return [
        _Group(values=group, state=kept | {(entry.path, group[0])})
        for group in _told_apart(possible, asked[entry.path])
    ]


def _told_apart(possible: Sequence[Value], conditions: Sequence[tuple[Value, ...]]) -> list[Sequence[Value]]:
    """Groups of the possible values that fulfil the same conditions, none of them empty."""
    named = sorted({possible.index(value) for asked in conditions for value in asked if value in possible})
    groups: dict[tuple[bool, ...], list[Value]] = {}
    for value in (possible[place] for place in named):
        groups.setdefault(tuple(value in asked for asked in conditions), []).append(value)
    told_apart: list[Sequence[Value]] = list(groups.values())
    if len(named) < len(possible):
        told_apart.append(_Rest(possible, named))
    return sorted(told_apart, key=lambda group: possible.index(group[0]))


def _is_active(entry: Entry, state: State) -> bool:
    known = dict(state)
    return all(condition.holds(known) for condition in entry.when)


def _rounded(value: float, digits: int) -> float:
    """0.001 where arithmetic gave 0.0010000000000000002."""
    return float(f"{value:.{digits}g}")
