from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.states import Outcome
from tuner.training import captured, checkpoint, loop, state
from tuner.training.progress import Phase, Stop

CNN = {"family": "cnn", "channels": 8, "dropout": 0.2}
MLP = {"family": "mlp", "units": 32}
MSE = {"metric": "mse"}


class Recorder:
    """Which phases came, and how often each ticked."""

    def __init__(self) -> None:
        self.phases: list[tuple[Phase, int]] = []

    def enter(self, phase: Phase) -> None:
        self.phases.append((phase, 0))

    def tick(self) -> None:
        phase, ticks = self.phases.pop()
        self.phases.append((phase, ticks + 1))


@pytest.mark.parametrize(
    ("model", "data", "settings", "metric", "threshold"),
    [
        (CNN, "images", {}, "accuracy", 0.95),
        ({"family": "rnn", "cell": "gru", "units": 16}, "images", {}, "accuracy", 0.9),
        (MLP, "points", {"learning_rate": 0.03}, "accuracy", 0.9),
        ({"family": "rnn", "units": 16, "relative_to_last": True}, "windows", {"objective": MSE}, "mse", 0.05),
    ],
    ids=["cnn", "rnn", "mlp", "forecast"],
)
def test_it_learns(
    model: Any, data: str, settings: Any, metric: str, threshold: float, request: Any, trial_config: Any, run: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    config = trial_config(model, epochs=15, **settings)
    training = run(config, request.getfixturevalue(data), tmp_path)
    assert training.result.outcome is Outcome.COMPLETE
    values = [metrics[metric] for metrics in training.curve]
    if metric == "accuracy":
        assert max(values) >= threshold
    else:
        assert min(values) <= threshold
    assert training.curve[-1]["train_loss"] < training.curve[0]["train_loss"]


def test_what_a_run_reports(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    progress = Recorder()
    training = run(trial_config(CNN), images, tmp_path, progress=progress)
    assert [epoch.epoch for epoch in training.epochs] == [1, 2, 3]
    assert set(training.curve[0]) == {"accuracy", "loss", "train_loss"}
    assert training.checkpoints == [tmp_path / "3.ckpt"]
    assert training.result.epochs == 3
    assert training.result.parameters > 0
    epoch = [(Phase.TRAIN, 7), (Phase.EVALUATE, 1)]  # 100 examples in 16s, 37 in one batch
    assert progress.phases == [(Phase.START, 0), *epoch * 3, (Phase.SAVE, 0)]


def test_the_global_generators_are_left_alone(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    run(trial_config(CNN), images, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_trial_does_not_depend_on_those_before_it(
    images: Path, trial_config: Any, run: Any, equal_to_the_bit: Any, tmp_path: Path
) -> None:
    config, other = trial_config(CNN), trial_config({**CNN, "channels": 16}, optimizer="sgd")
    alone = run(config, images, tmp_path / "alone", number=1)
    run(other, images, tmp_path / "before", number=0)
    after = run(config, images, tmp_path / "after", number=1)
    assert after.curve == alone.curve
    one, two = (checkpoint.load(training.checkpoints[-1]) for training in (alone, after))
    assert equal_to_the_bit(one.model, two.model)


def test_trials_differ_by_number_and_seed_unless_they_share(
    images: Path, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    def curve(seed: int, number: int, training_seed: str) -> list[dict[str, float]]:
        config = trial_config(CNN, epochs=1, seed=training_seed)
        return run(config, images, tmp_path / f"{seed}-{number}-{training_seed}", seed=seed, number=number).curve

    own, shared = [curve(0, 0, "trial"), curve(0, 1, "trial"), curve(1, 0, "trial")], curve(0, 0, "shared")
    assert own[0] != own[1] != own[2] != own[0]
    assert curve(0, 1, "shared") == shared != curve(1, 0, "shared")


@pytest.mark.parametrize("value", ["best", "last"])
def test_the_kept_weights_are_of_the_epoch_that_counts(
    value: str, images: Path, trial_config: Any, run: Any, equal_to_the_bit: Any, tmp_path: Path
) -> None:
    objective = {"metric": "loss", "value": value}
    config = trial_config({**CNN, "dropout": 0.0}, objective, epochs=8, learning_rate=0.2)
    training = run(config, images, tmp_path)
    kept = checkpoint.load(training.checkpoints[-1])
    losses = [metrics["loss"] for metrics in training.curve]
    assert min(losses) < losses[-1], "the last epoch must not be the best, or nothing is shown"
    expected = losses.index(min(losses)) + 1 if value == "best" else 8
    assert (kept.best.epoch, kept.best.value) == (expected, losses[expected - 1])
    assert equal_to_the_bit(dict(kept.best.model), dict(kept.model)) == (value == "last")
    assert list(kept.curve) == training.curve


def test_of_equal_epochs_the_first_is_kept(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    training = run(trial_config(CNN, epochs=12), images, tmp_path)
    accuracies = [metrics["accuracy"] for metrics in training.curve]
    assert accuracies.count(max(accuracies)) > 1, "a tie is needed, or nothing is shown"
    assert checkpoint.load(training.checkpoints[-1]).best.epoch == accuracies.index(max(accuracies)) + 1


def test_stop_now_returns_within_the_step(
    images: Path, trial_config: Any, run: Any, stopper: Any, tmp_path: Path
) -> None:
    stop = stopper(Stop.NOW, at=12)  # an epoch asks 9 times
    training = run(trial_config(CNN), images, tmp_path, stop=stop)
    assert stop.asked == 12
    assert (training.result.outcome, training.result.epochs, len(training.epochs)) == (None, 1, 1)
    assert not list(tmp_path.iterdir())


def test_stop_now_is_seen_in_an_evaluation(
    images: Path, trial_config: Any, run: Any, stopper: Any, tmp_path: Path
) -> None:
    training = run(trial_config(CNN), images, tmp_path, stop=stopper(Stop.NOW, at=8))
    assert (training.result.outcome, training.result.epochs) == (None, 0)


def test_stop_after_epoch_finishes_it_and_checkpoints(
    images: Path, trial_config: Any, run: Any, stopper: Any, tmp_path: Path
) -> None:
    training = run(trial_config(CNN), images, tmp_path, stop=stopper(Stop.AFTER_EPOCH, at=12))
    assert (training.result.outcome, training.result.epochs) == (None, 2)
    assert training.checkpoints == [tmp_path / "2.ckpt"]


def test_stop_in_the_last_epoch_completes_the_trial(
    images: Path, trial_config: Any, run: Any, stopper: Any, tmp_path: Path
) -> None:
    training = run(trial_config(CNN), images, tmp_path, stop=stopper(Stop.AFTER_EPOCH, at=20))
    assert (training.result.outcome, training.result.epochs) == (Outcome.COMPLETE, 3)


def test_checkpoints_follow_the_work_done(
    images: Path, trial_config: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    training = run(trial_config(CNN), images, tmp_path)
    assert [path.name for path in training.checkpoints] == ["1.ckpt", "2.ckpt", "3.ckpt"]
    assert checkpoint.load(training.checkpoints[-1]).seconds == pytest.approx(
        sum(epoch.seconds for epoch in training.epochs)
    )


@pytest.mark.parametrize("steps", [3, 100])
def test_a_diverged_trial_says_what_became_of_what(
    steps: int, windows: Path, trial_config: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "CHECK_STEPS", steps)
    config = trial_config({"family": "mlp"}, MSE, optimizer="sgd", learning_rate=100.0)
    training = run(config, windows, tmp_path)
    assert training.result.outcome is Outcome.DIVERGED
    assert training.result.reason in ("train_loss became nan in epoch 1", "train_loss became inf in epoch 1")
    assert training.epochs == []


def test_memory_that_does_not_suffice_is_an_outcome(
    windows: Path, trial_config: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner.training import models

    def too_much(*_: Any) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(models, "initialise", too_much)
    training = run(trial_config({"family": "mlp"}, MSE), windows, tmp_path)
    assert training.result.outcome is Outcome.OUT_OF_MEMORY
    assert training.result.reason is not None
    assert training.result.reason.startswith("out of memory on cpu: ")
    assert "\n" not in training.result.reason


def test_a_model_that_cannot_be_is_an_outcome(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    training = run(trial_config({"family": "cnn", "layers": 4}), images, tmp_path)
    assert training.result.outcome is Outcome.INFEASIBLE
    assert "too small to be halved" in str(training.result.reason)


@pytest.mark.parametrize(("size", "outcome"), [(1, Outcome.INFEASIBLE), (2, Outcome.COMPLETE)])
def test_batches_for_batch_norm_hold_two_examples(
    size: int, outcome: Outcome, images: Path, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    training = run(trial_config({"family": "cnn", "layers": 3}, batch_size=size, epochs=1), images, tmp_path)
    assert training.result.outcome is outcome


@pytest.mark.parametrize(("batch_norm", "steps"), [(True, 9), (False, 10)])
def test_a_last_batch_of_one_is_left_out_where_it_has_no_variance(
    batch_norm: bool, steps: int, images: Path, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    progress = Recorder()
    model = {"family": "cnn", "layers": 3, "batch_norm": batch_norm}
    training = run(trial_config(model, batch_size=11, epochs=1), images, tmp_path, progress=progress)
    assert training.result.outcome is Outcome.COMPLETE
    assert (Phase.TRAIN, steps) in progress.phases


def test_errors_that_are_bugs_escape(
    images: Path, trial_config: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(state.State, "evaluate", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        run(trial_config(CNN), images, tmp_path)
