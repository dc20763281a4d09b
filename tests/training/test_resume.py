"""A trial that was killed and resumed equals one that was not, to the bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import Run
from tuner.errors import ArtifactError
from tuner.states import Outcome
from tuner.training import checkpoint, loop
from tuner.training.progress import NoProgress, Stop

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("images", {"family": "cnn", "channels": 6, "dropout": 0.3}),
    "lstm": ("images", {"family": "rnn", "layers": 2, "units": 5, "dropout": 0.3, "bidirectional": True}),
    "gru": ("windows", {"family": "rnn", "cell": "gru", "units": 6, "relative_to_last": True}),
    "mlp": ("points", {"family": "mlp", "units": 6, "dropout": 0.3}),
}
EPOCHS = 5


@pytest.fixture(autouse=True)
def checkpoint_at_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)


def trial(trial_config: Any, model: str, optimizer: str = "adamw", **training: Any) -> Any:
    data, settings = MODELS[model]
    objective = {"metric": "mse" if data == "windows" else "loss"}
    momentum = 0.9 if optimizer in ("sgd", "rmsprop") else 0.0
    return trial_config(
        settings, objective, **{"epochs": EPOCHS, "optimizer": optimizer, "momentum": momentum, "weight_decay": 0.01,
        "learning_rate": 0.005, **training},
    )  # fmt: skip


def contents(path: Path) -> dict[str, Any]:
    """All of a checkpoint but the time it took."""
    kept = checkpoint.load(path)
    return {**vars(kept), "best": vars(kept.best), "seconds": None}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_resumed_equals_uninterrupted(
    model: str, optimizer: str, request: Any, trial_config: Any, run: Any, stopper: Any, equal_to_the_bit: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    config, data = trial(trial_config, model, optimizer), request.getfixturevalue(MODELS[model][0])
    whole = run(config, data, tmp_path / "whole")
    stop = stopper(Stop.NOW, at=random.Random(f"{model} {optimizer}").randint(10, 9 * EPOCHS - 1))
    first = run(config, data, tmp_path / "first", stop=stop)
    assert 1 <= first.result.epochs < EPOCHS
    second = run(config, data, tmp_path / "second", resume=first.checkpoints[-1])

    assert second.result.outcome is Outcome.COMPLETE
    assert [epoch.epoch for epoch in second.epochs] == list(range(first.result.epochs + 1, EPOCHS + 1))
    assert first.curve + second.curve == whole.curve
    assert equal_to_the_bit(contents(second.checkpoints[-1]), contents(whole.checkpoints[-1]))


def _train_slowly(config: Any, data: Path, folder: Path) -> None:
    torch.set_num_threads(1)

    def stop() -> Stop:
        time.sleep(0.002)  # so that a kill finds it in the middle
        return Stop.GO_ON

    loop.CHECKPOINT_SECONDS = 0.0
    runs = [Run(config=config, folder=folder, stop=stop)]
    loop.train(runs, data, device=torch.device("cpu"), joining=list, progress=NoProgress())


@pytest.mark.chaos
def test_killed_with_sigkill_and_resumed_in_another_process(
    images: Path, trial_config: Any, run: Any, equal_to_the_bit: Any, tmp_path: Path
) -> None:
    config = trial(trial_config, "cnn", epochs=40)
    process = multiprocessing.get_context("spawn").Process(target=_train_slowly, args=(config, images, tmp_path / "a"))
    process.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "a" / "3.ckpt").exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.2))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL

    latest = max((tmp_path / "a").glob("*.ckpt"), key=lambda path: int(path.stem))
    assert 3 <= int(latest.stem) < 40, "the kill must have come in the middle"
    whole = run(config, images, tmp_path / "whole")
    resumed = run(config, images, tmp_path / "b", resume=latest)
    assert resumed.curve == whole.curve[int(latest.stem) :]
    assert equal_to_the_bit(contents(resumed.checkpoints[-1]), contents(whole.checkpoints[-1]))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"torn")])
def test_a_checkpoint_that_cannot_be_read_costs_its_epochs_not_the_trial(
    damage: Any, images: Path, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    config = trial(trial_config, "cnn")
    whole = run(config, images, tmp_path / "whole")
    copy = tmp_path / "3.ckpt"
    copy.write_bytes(whole.checkpoints[0].read_bytes())
    damage(copy)
    again = run(config, images, tmp_path / "again", resume=copy)
    assert again.curve == whole.curve


def test_a_trial_that_had_ended_is_complete_at_once(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    config = trial(trial_config, "cnn")
    first = run(config, images, tmp_path / "first")
    again = run(config, images, tmp_path / "again", resume=first.checkpoints[-1])
    assert (again.result.outcome, again.result.epochs, again.epochs) == (Outcome.COMPLETE, EPOCHS, [])


@pytest.mark.parametrize("other", [{"seed": 1}, {"number": 1}, {"config": {"learning_rate": 0.006}}])
def test_a_checkpoint_of_another_trial_is_refused(
    other: Any, images: Path, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    first = run(trial(trial_config, "mlp"), images, tmp_path / "first")
    config = trial(trial_config, "mlp", **other.pop("config", {}))
    with pytest.raises(ArtifactError, match=r"5\.ckpt is of another configuration, seed or data set"):
        run(config, images, tmp_path / "other", resume=first.checkpoints[-1], **other)


def test_a_checkpoint_of_other_data_is_refused(
    images: Path, points: Path, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    config = trial(trial_config, "mlp")
    first = run(config, images, tmp_path / "first")
    with pytest.raises(ArtifactError, match="data set"):
        run(config, points, tmp_path / "other", resume=first.checkpoints[-1])
