"""How many slots a GPU gets, by numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.chaos.stub import Behaviour
from tests.worker.bench import Bench
from tests.worker.test_stacks import ONE_SHAPE
from tuner.worker.growth import FIRST_SLOTS, MEMORY_SHARE, WINDOW_SECONDS, Growth

Rate = Callable[[int], float]  # slots -> steps a second


def grown(rate: Rate, *, most: int = 64, share_of_a_slot: float | None = 0.01) -> list[int]:
    """How many slots there are, from one change to the next, in an hour."""
    growth, steps, seen = Growth(most), 0.0, [0]
    for now in range(3600):
        steps += rate(growth.slots)
        share = None if share_of_a_slot is None else share_of_a_slot * growth.slots
        slots = growth.look(float(now), int(steps), at_work=True, memory_share=lambda share=share: share)
        if slots != seen[-1]:
            seen.append(slots)
    return seen[1:]


@pytest.mark.parametrize(
    ("rate", "slots"),
    [
        (lambda slots: 100.0 * slots, [2, 4, 8, 16, 32, 64]),  # each has what it wants
        (lambda slots: 100.0 * min(slots, 8), [2, 4, 8, 16, 8]),  # the device is full
        (lambda slots: 1000.0, [2, 4, 2]),  # one fills it
        (lambda slots: 1000.0 / slots, [2, 4, 2]),  # they are in each other's way
    ],
)
def test_slots_double_while_it_pays(rate: Rate, slots: list[int]) -> None:
    assert grown(rate, share_of_a_slot=None) == slots


def test_memory_bounds_them() -> None:
    assert grown(lambda slots: 100.0 * slots, share_of_a_slot=0.07) == [2, 4, 8, int(MEMORY_SHARE / 0.07)]
    assert grown(lambda slots: 100.0 * slots, share_of_a_slot=0.5) == [FIRST_SLOTS]


def test_there_are_never_more_than_allowed() -> None:
    assert grown(lambda slots: 100.0 * slots, most=6) == [2, 4, 6]
    assert grown(lambda slots: 100.0 * slots, most=1) == [1]


def test_only_what_all_slots_do_at_once_counts() -> None:
    growth = Growth(most=8)
    for now in range(200):
        slots = growth.look(float(now), 100 * now, at_work=now % (WINDOW_SECONDS - 1) != 0, memory_share=lambda: None)
        assert slots == FIRST_SLOTS


def test_steps_of_a_new_process_begin_anew() -> None:
    growth = Growth(most=8)
    growth.look(0.0, 1_000_000, at_work=True, memory_share=lambda: None)
    growth.look(10.0, 0, at_work=True, memory_share=lambda: None)
    assert growth.look(WINDOW_SECONDS + 1, 100, at_work=True, memory_share=lambda: None) == FIRST_SLOTS
    assert growth.look(WINDOW_SECONDS + 11, 200, at_work=True, memory_share=lambda: None) == 2 * FIRST_SLOTS


def test_a_worker_opens_slots_while_it_pays(bench: Bench) -> None:
    """The more trials the stub trains at once, the more steps it makes in a second."""
    study = bench.study(ONE_SHAPE, training__engine="single", budget__trials="12", training__epochs="400")
    behaviour = Behaviour(epoch_seconds=0.1, checkpoint_epochs=1)
    worker = bench.start_stub("stacked", "--slots", "2", "--children", "1", "--growing", behaviour=behaviour)
    bench.until(lambda: sum(row.epoch > 0 for row in bench.trials(study)) == 4, "twice as many trials as at first")
    assert len(worker.children()) == 1
