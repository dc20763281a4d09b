"""The grid counts and names exactly the points that walking a space in all ways finds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

import pytest

from tuner.spec.grid import Grid, values
from tuner.spec.space import (
    Choices,
    Condition,
    Constant,
    Entry,
    FloatRange,
    IntRange,
    Parameter,
    Point,
    Space,
    Value,
)


class _Undecided(Exception):
    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter


def every_point(space: Space, decided: tuple[Value, ...] = ()) -> Iterator[Point]:
    """All points, by trying each value wherever the walk asks for one."""
    places = count()

    def choose(parameter: Parameter) -> Value:
        place = next(places)
        if place == len(decided):
            raise _Undecided(parameter)
        return decided[place]

    try:
        yield space.point(choose)
    except _Undecided as undecided:
        for value in values(undecided.parameter.domain):
            yield from every_point(space, (*decided, value))


def random_space(seed: int) -> Space:
    """Knobs of all kinds, each perhaps on conditions on those before it."""
    draw = random.Random(seed)
    possible: dict[str, list[Value]] = {}
    entries: list[Entry] = []
    for number in range(6):
        path = f"model.knob{number}"
        asked = draw.sample(sorted(possible), k=min(len(possible), draw.choice([0, 0, 1, 2])))
        when = tuple(
            Condition(path=other, values=tuple(draw.sample(possible[other], k=draw.randint(1, len(possible[other])))))
            for other in asked
        )
        low = draw.randint(0, 3)
        domain = draw.choice(
            [
                Choices(choices=("a", "b", None, True)[: draw.randint(1, 4)]),
                IntRange(low=low, high=low + draw.randint(0, 4)),
                IntRange(low=1, high=50, log=True, points=3),
                FloatRange(low=0.0, high=0.5, step=0.25),
            ]
        )
        possible[path] = list(values(domain))
        if draw.random() < 0.15:
            entries.append(Constant(path=path, value=possible[path][0], when=when))
        else:
            entries.append(Parameter(path=path, name=f"knob{number}", domain=domain, when=when))
    return Space(entries=tuple(entries))


@pytest.mark.parametrize("seed", range(40))
def test_a_conditional_grid_has_each_point_of_the_space_once(seed: int) -> None:
    space = random_space(seed)
    expected = [tuple(point.items()) for point in every_point(space)]
    grid = Grid(space)
    found = [tuple(grid.point(index).items()) for index in range(grid.size)]
    assert len(found) == len(set(found))
    assert set(found) == set(expected)
    assert grid.size == len(expected)


def test_the_example_with_cases_and_layers_counts_as_walking_does(read) -> None:
    space = read(
        "study: s\ndata: {name: spiral}\nsearch: {method: grid}\n"
        "model: {family: mlp, layers: {low: 0, high: 3}, units: {low: 4, high: 16, step: 4, each: model.layers}}\n"
        "training:\n  optimizer: {choices: [sgd, adam, rmsprop]}\n"
        "  learning_rate: [{when: {training.optimizer: sgd}, low: 0.1, high: 1, points: 3},\n"
        "    {when: {training.optimizer: [adam, rmsprop], model.layers: [1, 2]}, choices: [0.1, 0.2]}]\n"
        "  momentum: {low: 0, high: 0.9, step: 0.3, when: {training.optimizer: [sgd, rmsprop]}}\n"
    ).space
    grid = Grid(space)
    #        layers x units   sgd: rates x momenta   adam, rmsprop: rates, momenta
    assert grid.size == (1 + 64) * (3 * 4 + 1 + 4) + (4 + 16) * (3 * 4 + 2 + 2 * 4)
    assert grid.size == sum(1 for _ in every_point(space))
    trials = {space.resolve(grid.point(index)).model_dump_json() for index in range(grid.size)}
    assert len(trials) == grid.size


def test_a_grid_of_astronomic_size_is_counted_and_indexed_at_once(read) -> None:
    space = read(
        "study: s\ndata: {name: spiral}\nsearch: {method: grid}\nbudget: {trials: 9}\n"
        "model: {family: mlp, layers: {low: 1, high: 64}, units: {low: 1, high: 65536, each: model.layers}}\n"
    ).space
    grid = Grid(space)
    assert grid.size == sum(65536**layers for layers in range(1, 65))
    assert grid.point(0) == {"layers": 1, "units[0]": 1}
    last = grid.point(grid.size - 1)
    assert last == {"layers": 64, **{f"units[{layer}]": 65536 for layer in range(64)}}
    assert grid.point(grid.size // 2) != grid.point(grid.size // 2 + 1)


def test_a_space_without_parameters_is_one_point() -> None:
    grid = Grid(Space(entries=(Constant(path="model.family", value="cnn"),)))
    assert (grid.size, grid.point(0)) == (1, {})
    for outside in (-1, 1):
        with pytest.raises(IndexError):
            grid.point(outside)


def test_ranges_without_points_are_named() -> None:
    free = Parameter(
        path="training.learning_rate", name="learning_rate", domain=FloatRange(low=0.1, high=1.0, log=True)
    )
    listed = Parameter(path="model.layers", name="layers", domain=IntRange(low=1, high=9, log=True))
    grid = Grid(Space(entries=(free, listed)))
    assert grid.unlisted == (free,)
    assert grid.size == 0


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (FloatRange(low=1e-4, high=1e-1, log=True, points=4), [0.0001, 0.001, 0.01, 0.1]),
        (FloatRange(low=0.0, high=1.0, points=3), [0.0, 0.5, 1.0]),
        (FloatRange(low=0.0, high=0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (FloatRange(low=0.0, high=1.0, step=0.1, points=3), [0.0, 0.5, 1.0]),
        (FloatRange(low=0.5, high=0.5, points=5), [0.5]),
        (IntRange(low=1, high=7, step=3), [1, 4, 7]),
        (IntRange(low=16, high=256, log=True, points=5), [16, 32, 64, 128, 256]),
        (IntRange(low=1, high=3, points=9), [1, 2, 3]),
        (IntRange(low=0, high=12, step=3, points=3), [0, 6, 12]),
        (IntRange(low=2, high=4, log=True), [2, 3, 4]),
        (Choices(choices=("b", "a")), ["b", "a"]),
    ],
)
def test_the_values_that_a_grid_tries(domain, expected: list[Value]) -> None:
    assert list(values(domain)) == expected
