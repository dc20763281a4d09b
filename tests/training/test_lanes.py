"""Networks that take turns in one thread come to what they come to alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import CPU, Run, Stopper, same
from tuner.spec.config import SpiralData, TrialConfig
from tuner.states import Outcome
from tuner.training import checkpoint, lanes
from tuner.training.loop import Lane
from tuner.training.progress import NoProgress, Stop
from tuner.training.stack import Stack

CNN = {"family": "cnn", "channels": 6, "dropout": 0.2}
MLP = {"family": "mlp", "units": 8, "dropout": 0.3}
RNN = {"family": "rnn", "units": 6, "dropout": 0.4}

# lane -> what its trials are: a stack, one after the other, a network that cannot be stacked
LANES: dict[int, list[dict[str, Any]]] = {
    0: [{"model": CNN, "learning_rate": rate, "engine": "stacks"} for rate in (0.01, 0.003, 0.03)],
    1: [{"model": MLP, "engine": "single"}, {"model": MLP, "engine": "single", "learning_rate": 0.1}],
    2: [{"model": RNN, "optimizer": "rmsprop", "epochs": 2}],
}


@pytest.fixture
def runs(trial_config: Callable[..., TrialConfig], tmp_path: Path) -> Callable[..., list[Run]]:
    """Fresh runs of the trials of some lanes; a trial's number tells it apart."""
    folders = (tmp_path / str(count) for count in itertools.count())

    def make(*chosen: int) -> list[Run]:
        folder, numbers, made = next(folders), itertools.count(), []
        for lane, trials in LANES.items():
            for trial, number in zip(trials, numbers, strict=False):
                if lane in chosen:
                    config = trial_config(**trial)
                    made.append(Run(config=config, folder=folder / str(number), number=number, lane=lane))
        return made

    return make


def go(runs: Sequence[Run], images: Path, joining: Callable[[], Sequence[Run]] = list) -> None:
    lanes.train(runs, lambda _: images, device=CPU, joining=joining, progress=NoProgress())


def weights(run: Run) -> dict[str, Any]:
    kept = checkpoint.load(run.checkpoints[-1])
    return {**vars(kept), "best": vars(kept.best), "seconds": None}


@pytest.fixture
def alone(runs: Callable[..., list[Run]], images: Path) -> dict[int, Run]:
    trained = {}
    for lane in LANES:
        mine = runs(lane)
        go(mine, images)
        trained.update({run.number: run for run in mine})
    return trained


def assert_as_alone(run: Run, alone: dict[int, Run]) -> None:
    assert run.result.outcome is Outcome.COMPLETE
    assert run.curve == alone[run.number].curve
    assert same(weights(run), weights(alone[run.number]))


def test_a_trial_does_not_depend_on_other_lanes_to_the_bit(
    runs: Callable[..., list[Run]], alone: dict[int, Run], images: Path
) -> None:
    together = runs(0, 1, 2)
    go(together, images)
    for run in together:
        assert_as_alone(run, alone)


def test_lanes_take_turns(runs: Callable[..., list[Run]], images: Path) -> None:
    seen: list[int] = []
    together = runs(1, 2)
    for run in together:
        run.stop = lambda run=run: seen.append(run.lane) or Stop.GO_ON  # type: ignore[misc,func-returns-value]
    go(together, images)
    first_of = {lane: seen.index(lane) for lane in (1, 2)}
    last_of = {lane: len(seen) - seen[::-1].index(lane) for lane in (1, 2)}
    assert first_of[2] < last_of[1]
    assert first_of[1] < last_of[2]
    changes = sum(one != other for one, other in itertools.pairwise(seen[: last_of[2]]))
    assert changes > 10


def test_trials_join_lanes_that_train_and_new_ones(
    runs: Callable[..., list[Run]], alone: dict[int, Run], images: Path
) -> None:
    first, *later = runs(0, 1, 2)
    asked = itertools.count()

    def joining() -> list[Run]:
        """One at a time, some steps apart."""
        return [later.pop()] if later and next(asked) % 5 == 4 else []

    together = [first, *later]
    go([first], images, joining)
    for run in together:
        assert_as_alone(run, alone)


def test_a_lane_that_runs_out_of_memory_ends_its_own_trials_only(
    runs: Callable[..., list[Run]], alone: dict[int, Run], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Stack.learn

    def too_much(self: Stack, batch: Any, index: Any) -> None:
        if self.courses[0].epoch == 1:
            torch.empty(2**60, dtype=torch.uint8)
        learn(self, batch, index)

    monkeypatch.setattr(Stack, "learn", too_much)
    together = runs(0, 1, 2)
    go(together, images)
    for run in together:
        if run.lane == 0:
            assert (run.result.outcome, run.result.epochs) == (Outcome.OUT_OF_MEMORY, 1)
        else:
            assert_as_alone(run, alone)


def test_a_stop_ends_one_lane(runs: Callable[..., list[Run]], alone: dict[int, Run], images: Path) -> None:
    together = runs(0, 1, 2)
    stopped = together[-1]
    stopped.stop = Stopper(Stop.NOW, at=10)
    go(together, images)
    assert (stopped.result.outcome, stopped.result.epochs) == (None, 1)
    for run in together[:-1]:
        assert_as_alone(run, alone)


def test_trials_on_other_data_wait_for_the_end_of_those_before_in_their_lane(
    trial_config: Callable[..., TrialConfig], images: Path, points: Path, tmp_path: Path
) -> None:
    """A lane that has told its supervisor the end of one study may be given another's trials before it has ended."""
    folders = {False: images, True: points}
    configs = [trial_config(model=MLP, engine="single"), trial_config(model=MLP, engine="single")]
    configs[1] = configs[1].model_copy(update={"data": SpiralData()})
    alone, both = (
        [
            Run(config=config, folder=tmp_path / name / str(number), number=number)
            for number, config in enumerate(configs)
        ]
        for name in ("alone", "both")
    )

    def train(some: Sequence[Run]) -> None:
        lanes.train(
            some,
            lambda config: folders[isinstance(config.data, SpiralData)],
            device=CPU,
            joining=list,
            progress=NoProgress(),
        )

    for run in alone:
        train([run])
    train(both)
    assert [run.curve for run in both] == [run.curve for run in alone]


def test_what_a_lane_raises_ends_the_training(
    runs: Callable[..., list[Run]], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Lane, *_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Lane, "_network", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        go(runs(0, 1), images)
