"""What only a GPU can show: captured steps, streams, its memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import Run, Stopper, same
from tuner.spec.config import TrialConfig
from tuner.states import Outcome
from tuner.training import captured, checkpoint, loop, stack, state
from tuner.training.captured import Eager
from tuner.training.lanes import train
from tuner.training.progress import NoProgress, Stop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CUDA = torch.device("cuda", 0)
TOLERANCE = 2e-2  # of a metric between two runs of one trial whose operations need not repeat to the bit
EPOCHS = 6  # so that last batches, of which one comes in an epoch, are captured too

MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"family": "cnn", "channels": 8, "dropout": 0.3},
    "mlp": {"family": "mlp", "units": 16, "dropout": 0.3},
    "rnn": {"family": "rnn", "units": 8, "layers": 2, "dropout": 0.3},
}
ENGINES = [("cnn", "single"), ("mlp", "single"), ("rnn", "single"), ("cnn", "stacks"), ("mlp", "stacks")]


@pytest.fixture
def runs(trial_config: Callable[..., TrialConfig], tmp_path: Path) -> Callable[..., list[Run]]:
    folders = (tmp_path / str(count) for count in itertools.count())

    def make(name: str, engine: str, *lanes: int, **training: Any) -> list[Run]:
        folder = next(folders)
        config = trial_config(MODELS[name], epochs=EPOCHS, engine=engine, **training)
        return [
            Run(config=config, folder=folder / str(number), number=number, lane=lane)
            for number, lane in enumerate(lanes)
        ]

    return make


def go(runs: Sequence[Run], images: Path) -> list[Run]:
    train(runs, lambda _: images, device=CUDA, joining=list, progress=NoProgress())
    return list(runs)


def kept(run: Run) -> dict[str, Any]:
    found = checkpoint.load(run.checkpoints[-1])
    return {**vars(found), "best": vars(found.best), "seconds": None}


def assert_equal(ours: Run, theirs: Run, *, to_the_bit: bool) -> None:
    assert ours.result.outcome is theirs.result.outcome is Outcome.COMPLETE
    if to_the_bit:
        assert ours.curve == theirs.curve
        assert same(kept(ours), kept(theirs))
    for one, other in zip(ours.curve, theirs.curve, strict=True):
        assert one == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_a_captured_lane_equals_an_eager_one(
    name: str, engine: str, optimizer: str, runs: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for deterministic in (True, False):
        training = {"optimizer": optimizer, "deterministic": deterministic}
        replayed = go(runs(name, engine, 0, 0, **training), images)
        with monkeypatch.context() as patch:
            for module in (state, stack):
                patch.setattr(module, "steps_on", lambda _: Eager())
            eager = go(runs(name, engine, 0, 0, **training), images)
        for ours, theirs in zip(replayed, eager, strict=True):
            assert_equal(ours, theirs, to_the_bit=deterministic)


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_steps_are_captured(
    name: str, engine: str, runs: Any, images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = []
    record = captured._Graphs.__call__

    def count(self: Any, *arguments: Any) -> Any:
        recorded.append(record(self, *arguments))
        return recorded[-1]

    captured._say_once.cache_clear()
    monkeypatch.setattr(captured._Graphs, "__call__", count)
    go(runs(name, engine, 0), images)
    assert len(recorded) == 2  # whole batches and the last one
    assert not caplog.messages


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_two_lanes_come_to_what_one_comes_to(name: str, engine: str, runs: Any, images: Path) -> None:
    together = go(runs(name, engine, 0, 1, deterministic=True), images)
    for run, fresh in zip(together, runs(name, engine, 0, 0, deterministic=True), strict=True):
        (alone,) = go([fresh], images)
        assert_equal(run, alone, to_the_bit=True)


def test_a_lane_out_of_memory_ends_its_own_trial_only(runs: Any, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = state.State.learn

    def too_much(self: state.State, batch: Any, index: Any) -> None:
        if self.course.epoch == 1 and self.config.training.learning_rate == 0.5:
            torch.empty(2**50, dtype=torch.uint8, device=CUDA)
        learn(self, batch, index)

    monkeypatch.setattr(state.State, "learn", too_much)
    monkeypatch.setattr(captured, "EAGER_STEPS", 100)
    (large,) = runs("mlp", "single", 0, learning_rate=0.5)
    (other,) = runs("mlp", "single", 1)
    go([large, other], images)
    assert large.result.outcome is Outcome.OUT_OF_MEMORY
    assert large.result.reason is not None
    assert large.result.reason.startswith("out of memory on cuda:0")
    assert (other.result.outcome, other.result.epochs) == (Outcome.COMPLETE, EPOCHS)


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_resumed_equals_uninterrupted(
    name: str, engine: str, runs: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    (whole,) = go(runs(name, engine, 0, deterministic=True), images)
    (first,) = runs(name, engine, 0, deterministic=True)
    first.stop = Stopper(Stop.AFTER_EPOCH, at=20)
    go([first], images)
    assert 0 < first.result.epochs < EPOCHS
    (second,) = runs(name, engine, 0, deterministic=True)
    second.resume = first.checkpoints[-1]
    go([second], images)
    assert second.result.outcome is Outcome.COMPLETE
    assert same([*first.curve, *second.curve], whole.curve)
    assert same(kept(second)["model"], kept(whole)["model"])
