"""What every sampler promises, whatever its method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import pytest
from optuna.trial import FrozenTrial, TrialState

from tuner.search import SAMPLERS, History
from tuner.search.distributions import distribution
from tuner.search.grid import permuted
from tuner.search.tpe import STARTUP_TRIALS
from tuner.spec.grid import Grid
from tuner.spec.search import Method
from tuner.spec.space import Choices, Condition, Constant, FloatRange, IntRange, Parameter, Point, Space

SGD = (Condition(path="training.optimizer", values=("sgd",)),)
ADAM = (Condition(path="training.optimizer", values=("adam", "adamw")),)
SPACE = Space(
    entries=(
        Parameter(path="model.layers", name="layers", domain=IntRange(low=1, high=3)),
        *(
            Parameter(
                path="model.units",
                name=f"units[{layer}]",
                domain=IntRange(low=16, high=256, log=True, points=3),
                when=(Condition(path="model.layers", values=tuple(range(layer + 1, 4))),),
                layer=layer,
            )
            for layer in range(3)
        ),
        Parameter(path="training.optimizer", name="optimizer", domain=Choices(choices=("sgd", "adam", "adamw"))),
        Parameter(
            path="training.learning_rate",
            name="learning_rate[sgd]",
            domain=FloatRange(low=1e-3, high=1.0, log=True, points=4),
            when=SGD,
        ),
        Parameter(
            path="training.learning_rate",
            name="learning_rate[adam,adamw]",
            domain=FloatRange(low=1e-5, high=1e-2, log=True, points=3),
            when=ADAM,
        ),
        Constant(path="training.momentum", value=0.9, when=SGD),
        Parameter(path="model.dropout", name="dropout", domain=FloatRange(low=0.0, high=0.5, step=0.25)),
        Parameter(path="model.bidirectional", name="bidirectional", domain=Choices(choices=(True, False))),
    )
)

METHODS = pytest.mark.parametrize("method", list(SAMPLERS))


def trial(number: int, point: Point, *, running: bool = False) -> FrozenTrial:
    kinds = {parameter.name: distribution(parameter) for parameter in SPACE.parameters if parameter.name in point}
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING if running else TrialState.COMPLETE,
        value=None if running else -abs(math.log10(float(point.get("learning_rate[sgd]") or 1e-3)) + 2),
        datetime_start=datetime(2026, 1, 1),
        datetime_complete=None if running else datetime(2026, 1, 1),
        params=dict(point),
        distributions=kinds,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def history(seed: int = 0, finished: int = 15, running: Sequence[int] = ()) -> History:
    empty = History(direction="maximize")
    points = {number: SAMPLERS["random"](SPACE, empty, seed, number) for number in [*range(finished), *running]}
    return History(
        direction="maximize",
        finished=[trial(number, points[number]) for number in range(finished)],
        running=[trial(number, points[number], running=True) for number in running],
    )


@METHODS
@pytest.mark.parametrize("number", range(15, 40))
def test_points_hold_active_parameters_only_and_their_values_lie_in_range(method: Method, number: int) -> None:
    point = SAMPLERS[method](SPACE, history(running=[15, 16]), 3, number)
    expected = [f"units[{layer}]" for layer in range(int(point["layers"] or 0))]
    rate = "learning_rate[sgd]" if point["optimizer"] == "sgd" else "learning_rate[adam,adamw]"
    assert list(point) == ["layers", *expected, "optimizer", rate, "dropout", "bidirectional"]
    assert type(point["layers"]) is int
    assert 1 <= point["layers"] <= 3
    assert all(type(point[name]) is int and 16 <= point[name] <= 256 for name in expected)  # type: ignore[operator]
    low, high = (1e-3, 1.0) if rate == "learning_rate[sgd]" else (1e-5, 1e-2)
    assert isinstance(point[rate], float)
    assert low <= point[rate] <= high
    assert point["dropout"] in (0.0, 0.25, 0.5)
    assert point["bidirectional"] in (True, False)


@METHODS
def test_a_proposal_is_a_function_of_its_arguments(method: Method) -> None:
    first = [SAMPLERS[method](SPACE, history(), 1, number) for number in range(12, 24)]
    again = [SAMPLERS[method](SPACE, history(), 1, number) for number in reversed(range(12, 24))]
    assert first == again[::-1]
    assert len({str(point) for point in first}) > 6
    assert first != [SAMPLERS[method](SPACE, history(), 2, number) for number in range(12, 24)]


@pytest.mark.parametrize("method", ["grid", "random"])
def test_the_history_changes_nothing_for_methods_that_do_not_learn(method: Method) -> None:
    for number in range(30):
        alone = SAMPLERS[method](SPACE, History(direction="maximize"), 0, number)
        assert SAMPLERS[method](SPACE, history(running=[20]), 0, number) == alone


class TestGrid:
    def test_every_point_comes_once(self) -> None:
        size = Grid(SPACE).size
        empty = History(direction="maximize")
        points = {tuple(SAMPLERS["grid"](SPACE, empty, 5, number).items()) for number in range(size)}
        assert len(points) == size == (3 + 9 + 27) * (4 + 2 * 3) * 3 * 2

    def test_beyond_the_last_point_there_is_none(self) -> None:
        with pytest.raises(IndexError):
            SAMPLERS["grid"](SPACE, History(direction="maximize"), 0, Grid(SPACE).size)

    @pytest.mark.parametrize("size", [1, 2, 3, 64, 65, 1000])
    def test_the_order_is_a_permutation(self, size: int) -> None:
        assert sorted(permuted(index, size, seed=7) for index in range(size)) == list(range(size))

    def test_a_cut_budget_is_spread_over_the_grid(self) -> None:
        size, sample = 10_000, 1_000
        seen = [permuted(index, size, seed=1) for index in range(sample)]
        tenths = [sum(size // 10 * tenth <= place < size // 10 * (tenth + 1) for place in seen) for tenth in range(10)]
        assert all(60 <= count <= 140 for count in tenths), tenths

    def test_huge_grids_cost_nothing(self) -> None:
        assert len({permuted(index, 10**15, seed=0) for index in range(100)}) == 100


class TestTpe:
    def test_its_first_trials_are_those_of_random_search(self) -> None:
        for number in range(STARTUP_TRIALS):
            drawn = SAMPLERS["random"](SPACE, History(direction="maximize"), 4, number)
            assert SAMPLERS["tpe"](SPACE, history(finished=number), 4, number) == drawn

    def test_with_too_little_finished_it_is_still_random(self) -> None:
        few = history(finished=STARTUP_TRIALS - 1, running=list(range(20, 30)))
        assert SAMPLERS["tpe"](SPACE, few, 4, 31) == SAMPLERS["random"](SPACE, few, 4, 31)

    def test_another_order_of_finishing_or_other_running_trials_give_another_point(self) -> None:
        seen = history(finished=20)
        turned = History(direction="maximize", finished=seen.finished[::-1])
        busy = history(finished=20, running=[20, 21, 22])
        points = [[SAMPLERS["tpe"](SPACE, view, 0, n) for n in range(25, 35)] for view in (seen, turned, busy)]
        assert points[0] != points[1]
        assert points[0] != points[2]

    def test_it_learns(self) -> None:
        """The value is best at sgd with a learning rate of 0.01: proposals gather there."""
        past: list[FrozenTrial] = []
        for number in range(60):
            point = SAMPLERS["tpe"](SPACE, History(direction="maximize", finished=past), 0, number)
            past.append(trial(number, point))
        early = sorted(t.value or 0.0 for t in past[:10])
        late = sorted(t.value or 0.0 for t in past[-10:])
        assert late[5] > early[5]

    def test_it_avoids_what_violated_a_constraint(self) -> None:
        """Two layers always diverge. Told so by a constraint it learns; by a plain failure it would not."""

        def proposals(state: TrialState, attributes: dict[str, float]) -> int:
            past: list[FrozenTrial] = []
            for number in range(60):
                point = SAMPLERS["tpe"](SPACE, History(direction="maximize", finished=past), 0, number)
                done = trial(number, point)
                if point["layers"] == 2:
                    done.state, done.values, done.system_attrs = state, None, dict(attributes)
                past.append(done)
            return sum(done.params["layers"] == 2 for done in past[20:])

        constrained = proposals(TrialState.PRUNED, {"constraints:diverged": 1.0})
        assert constrained < proposals(TrialState.FAIL, {})
        assert constrained < 40 / 3

    def test_values_of_one_do_not_confuse_it(self) -> None:
        space = Space(
            entries=(
                *SPACE.entries,
                Parameter(path="training.batch_size", name="batch_size", domain=IntRange(low=8, high=8)),
            )
        )
        point = SAMPLERS["tpe"](space, history(finished=20), 0, 20)
        assert point["batch_size"] == 8
