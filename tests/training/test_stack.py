"""Trials trained together come to what they come to alone."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import CPU, Run, same
from tuner.spec.config import TrainingConfig, TrialConfig
from tuner.spec.stacking import Engine, Group
from tuner.states import Outcome
from tuner.training import agreement, checkpoint, data, loop
from tuner.training import engine as engines
from tuner.training.course import Member
from tuner.training.engine import measure
from tuner.training.evaluation import score
from tuner.training.export import export, load_model
from tuner.training.loop import train
from tuner.training.models.layers import draw_kept
from tuner.training.optimizers import build_optimizer
from tuner.training.progress import NoProgress, Stop
from tuner.training.stack_optimizers import STACK_OPTIMIZERS

EPOCHS = 3
RATES = (0.01, 0.003, 0.03, 0.001, 0.02, 0.006, 0.015)
SHARES = (0.0, 0.3, 0.5, 0.1, 0.0, 0.2, 0.4)

# Widths that fill no block of a processor's vectors, every activation, every kind of pooling.
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cnn": ("images", {"family": "cnn", "channels": 6}, "adamw"),
    "cnn without norm": ("images", {"family": "cnn", "channels": 16, "batch_norm": False, "kernel": 2}, "sgd"),
    "cnn gelu": ("images", {"family": "cnn", "channels": 7, "activation": "gelu", "pooling": "average"}, "adam"),
    "cnn silu": ("images", {"family": "cnn", "channels": 3, "activation": "silu", "pooling": "none"}, "adamw"),
    "cnn wide": ("images", {"family": "cnn", "channels": 64, "dense_units": 0, "activation": "elu"}, "adamw"),
    "mlp tanh": ("points", {"family": "mlp", "units": 7, "activation": "tanh"}, "adamw"),
    "mlp sigmoid": ("points", {"family": "mlp", "units": 13, "layers": 3, "activation": "sigmoid"}, "adam"),
    "mlp leaky_relu": ("images", {"family": "mlp", "units": 33, "activation": "leaky_relu"}, "sgd"),
    "mlp forecast": ("windows", {"family": "mlp", "units": 16}, "adamw"),
}  # fmt: skip


@pytest.fixture
def together(trial_config: Any, request: Any, tmp_path: Path) -> Callable[..., list[Run]]:
    """Trains some of seven trials together, in the order of their numbers in `members`."""
    folders = (tmp_path / f"training {count}" for count in itertools.count())

    def go(name: str, members: Sequence[int], *, engine: str = "stacks", share: float | None = None) -> list[Run]:
        folder = next(folders)
        configs = {number: config_of(trial_config, name, number, engine, share) for number in members}
        runs = [Run(config=configs[number], folder=folder / str(number), number=number) for number in members]
        train(runs, request.getfixturevalue(MODELS[name][0]), device=CPU, joining=list, progress=NoProgress())
        return runs

    return go


def config_of(
    trial_config: Any, name: str, number: int, engine: str = "stacks", share: float | None = None, **training: Any
) -> TrialConfig:
    data_name, model, optimizer = MODELS[name]
    dropout = SHARES[number] if share is None else share
    settings = {
        "epochs": EPOCHS, "optimizer": optimizer, "learning_rate": RATES[number], "weight_decay": 0.01 * number,
        "momentum": 0.1 * number if optimizer == "sgd" else 0.0, "engine": engine, **training,
    }  # fmt: skip
    objective = {"metric": "mse"} if data_name == "windows" else {"metric": "loss"}
    config: TrialConfig = trial_config({**model, "dropout": dropout}, objective, **settings)
    return config


def kept(run: Run) -> dict[str, Any]:
    """All of the last checkpoint but the time that it took."""
    found = checkpoint.load(run.checkpoints[-1])
    return {**vars(found), "best": vars(found.best), "seconds": None}


@pytest.mark.parametrize("name", MODELS)
def test_a_trial_does_not_depend_on_its_companions_to_the_bit(name: str, together: Any) -> None:
    alone = {number: together(name, [number])[0] for number in range(7)}
    for members in ([0, 1], [1, 0], [5, 2, 0], [3, 1, 4, 6], list(range(7)), list(range(6, -1, -1))):
        for run in together(name, members):
            assert run.curve == alone[run.number].curve, f"trial {run.number} among {members}"
            assert same(kept(run), kept(alone[run.number])), f"trial {run.number} among {members}"


@pytest.mark.parametrize("name", MODELS)
def test_a_stack_trains_as_single_networks_do(name: str, together: Any) -> None:
    """But for rounding, and the noise of dropout."""
    stacks = together(name, [0, 1, 2], share=0.0)
    singles = [together(name, [number], engine="single", share=0.0)[0] for number in range(3)]
    for stacked, single in zip(stacks, singles, strict=True):
        for one, other in zip(stacked.curve, single.curve, strict=True):
            assert one == pytest.approx(other, rel=2e-3, abs=2e-3)
        ours, theirs = kept(stacked)["model"], kept(single)["model"]
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], rtol=5e-3, atol=5e-3)


def test_dropout_sets_its_share_to_zero_and_scales_the_rest() -> None:
    kept = draw_kept(torch.empty(40, 250), 0.3, torch.Generator().manual_seed(0))
    assert (kept == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]


def test_members_join_between_epochs(together: Any, trial_config: Any, images: Path, tmp_path: Path) -> None:
    alone = {number: together("cnn", [number])[0] for number in range(4)}
    runs = [
        Run(config=config_of(trial_config, "cnn", number), folder=tmp_path / str(number), number=number)
        for number in range(4)
    ]
    waiting = runs[2:]
    train(runs[:2], images, device=CPU, joining=lambda: [waiting.pop()] if waiting else [], progress=NoProgress())
    for run in runs:
        assert run.result.outcome is Outcome.COMPLETE
        assert run.curve == alone[run.number].curve


def test_a_member_that_is_stopped_leaves_the_others_undisturbed(
    together: Any, trial_config: Any, images: Path, tmp_path: Path
) -> None:
    alone = {number: together("cnn", [number])[0] for number in (0, 2)}
    runs = [
        Run(config=config_of(trial_config, "cnn", number), folder=tmp_path / str(number), number=number)
        for number in range(3)
    ]
    runs[1].stop = lambda: Stop.NOW if runs[1].epochs else Stop.GO_ON
    train(runs, images, device=CPU, joining=list, progress=NoProgress())
    assert [run.result.outcome for run in runs] == [Outcome.COMPLETE, None, Outcome.COMPLETE]
    assert len(runs[1].epochs) < EPOCHS
    for number in (0, 2):
        assert runs[number].curve == alone[number].curve


def test_a_member_that_is_stopped_leaves_no_file_that_nobody_knows(
    trial_config: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its companions finish the epoch in which it was stopped, and with them it does."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    runs = [
        Run(config=config_of(trial_config, "cnn", number), folder=tmp_path / str(number), number=number)
        for number in range(2)
    ]
    runs[1].stop = lambda: Stop.NOW if runs[1].epochs else Stop.GO_ON
    train(runs, images, device=CPU, joining=list, progress=NoProgress())
    for run in runs:
        assert sorted(run.folder.iterdir()) == sorted(run.checkpoints)


def test_other_shapes_wait_for_their_turn(trial_config: Any, images: Path, tmp_path: Path) -> None:
    names = ["cnn", "cnn wide", "cnn", "cnn gelu"]
    order: list[str] = []
    runs = []
    for number, name in enumerate(names):
        run = Run(config=config_of(trial_config, name, number), folder=tmp_path / str(number), number=number)
        end = run.end
        run.end = lambda result, name=name, end=end: (order.append(name), end(result))  # type: ignore[misc, method-assign]
        runs.append(run)
    train(runs, images, device=CPU, joining=list, progress=NoProgress())
    assert order == ["cnn", "cnn", "cnn wide", "cnn gelu"]
    assert all(run.result.outcome is Outcome.COMPLETE for run in runs)


@pytest.mark.parametrize("name", ["cnn", "mlp tanh", "cnn without norm"])
def test_resumed_among_others_equals_uninterrupted(
    name: str, together: Any, trial_config: Any, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    folder = request.getfixturevalue(MODELS[name][0])

    def run(number: int, part: str, **settings: Any) -> Run:
        return Run(config=config_of(trial_config, name, number), folder=tmp_path / part, number=number, **settings)

    whole = together(name, [1])[0]
    interrupted = run(1, "interrupted")
    interrupted.stop = lambda: Stop.AFTER_EPOCH if interrupted.epochs else Stop.GO_ON
    train([run(0, "beside"), interrupted], folder, device=CPU, joining=list, progress=NoProgress())
    assert (interrupted.result.outcome, interrupted.result.epochs) == (None, 2)
    resumed = run(1, "resumed", resume=interrupted.checkpoints[-1])
    train([run(3, "before"), resumed, run(4, "behind")], folder, device=CPU, joining=list, progress=NoProgress())
    assert interrupted.curve + resumed.curve == whole.curve
    assert same(kept(resumed), kept(whole))


def test_what_a_member_leaves_is_an_ordinary_model(together: Any, images: Path, tmp_path: Path) -> None:
    run = together("cnn", [0, 1, 2])[1]
    best = checkpoint.load(run.checkpoints[-1]).best
    scored = score(run.config, run.checkpoints[-1], images, "validation")
    assert scored["loss"] == pytest.approx(best.value, rel=1e-5)
    export(run.config, run.checkpoints[-1], data.info(images), tmp_path / "model")
    outputs = load_model(tmp_path / "model")(torch.tensor(data.part(images, "validation").inputs.copy()))
    assert outputs.shape == (37, 3)


def test_a_diverging_member_leaves_the_others_undisturbed(trial_config: Any, windows: Path, tmp_path: Path) -> None:
    def run(number: int, folder: str, **training: Any) -> Run:
        config = config_of(trial_config, "mlp forecast", number, optimizer="sgd", **training)
        return Run(config=config, folder=tmp_path / folder, number=number)

    alone = run(2, "alone")
    train([alone], windows, device=CPU, joining=list, progress=NoProgress())
    runs = [run(0, "0"), run(1, "1", learning_rate=100.0), run(2, "2")]
    train(runs, windows, device=CPU, joining=list, progress=NoProgress())
    assert [run.result.outcome for run in runs] == [Outcome.COMPLETE, Outcome.DIVERGED, Outcome.COMPLETE]
    assert runs[1].result.reason in ("train_loss became nan in epoch 1", "train_loss became inf in epoch 1")
    assert runs[2].curve == alone.curve


def test_trials_agree_also_where_one_diverges_at_once(trial_config: Any, windows: Path) -> None:
    wild = config_of(trial_config, "mlp forecast", 0, learning_rate=100.0, optimizer="sgd")
    members = [Member(config=wild, seed=0, number=number) for number in range(3)]
    agreement._agreed.clear()
    assert agreement.agree(members, windows, CPU)


def test_an_impossible_shape_ends_all_its_trials(trial_config: Any, images: Path, tmp_path: Path) -> None:
    config = trial_config({"family": "cnn", "layers": 8}, engine="stacks")
    runs = [Run(config=config, folder=tmp_path / str(number), number=number) for number in range(2)]
    train(runs, images, device=CPU, joining=list, progress=NoProgress())
    assert [run.result.outcome for run in runs] == [Outcome.INFEASIBLE] * 2


def test_where_companions_matter_after_all_each_trains_alone(
    together: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alone = together("cnn", [2])[0]
    monkeypatch.setattr(agreement, "_agreed", {})
    monkeypatch.setattr(agreement, "_same_bits", lambda one, other: False)
    with caplog.at_level(logging.WARNING):
        runs = together("cnn", [0, 1, 2])
    assert "they train alone" in caplog.text
    assert all(run.result.outcome is Outcome.COMPLETE for run in runs)
    assert runs[2].curve == alone.curve


@pytest.mark.parametrize("name", STACK_OPTIMIZERS)
def test_each_optimizer_takes_the_steps_of_torchs(name: str) -> None:
    """To a millionth, over a hundred steps, each member by its own hyperparameters."""
    generator = torch.Generator().manual_seed(0)
    configs = [
        TrainingConfig(
            optimizer=name,  # type: ignore[arg-type]
            learning_rate=rate, weight_decay=decay, momentum=momentum if name == "sgd" else 0.0,
        )
        for rate, decay, momentum in [(0.01, 0.0, 0.9), (0.001, 0.1, 0.0), (0.1, 0.001, 0.5)]
    ]  # fmt: skip
    weights = torch.randn(3, 64, generator=generator)
    singles = [nn.Linear(64, 1, bias=False) for _ in configs]
    for single, row in zip(singles, weights, strict=True):
        single.weight.data.copy_(row)
    theirs = [build_optimizer(single, config, CPU) for single, config in zip(singles, configs, strict=True)]
    ours = STACK_OPTIMIZERS[name](configs, [torch.zeros_like(weights) for _ in range(STACK_OPTIMIZERS[name].MOMENTS)])
    for index in range(100):
        if index % 40 == 0:  # as epochs begin
            ours.begin([index] * 3, 40)
        gradients: Tensor = torch.randn(3, 64, generator=generator)
        for single, optimizer, gradient in zip(singles, theirs, gradients, strict=True):
            single.weight.grad = gradient.clone().unsqueeze(0)
            optimizer.step()
        ours.step(weights, gradients, index % 40)
    for single, row in zip(singles, weights, strict=True):
        torch.testing.assert_close(row, single.weight[0].detach(), rtol=1e-6, atol=1e-6)


def test_where_the_file_asks_for_stacks_only_their_size_is_measured(
    trial_config: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow they are: several trials are to train as one network."""
    monkeypatch.setattr(engines, "SLOW_STEP", 0.0)
    monkeypatch.setattr(engines, "LONGEST_STEP", 0.0)
    asked = [config_of(trial_config, "cnn", number) for number in range(4)]
    assert asked[0].training.engine == "stacks"
    engine = measure([Group(config=asked[0], trials=4)], images, CPU, NoProgress()).engine
    assert (engine.name, engine.members) == ("stacks", 2)
    assert measure([left_open(asked[0], trials=4)], images, CPU, NoProgress()).engine.name == "single"


def left_open(config: TrialConfig, trials: int) -> Group:
    """So many like this one, with `engine: auto`."""
    training = config.training.model_copy(update={"engine": "auto"})
    return Group(config=config.model_copy(update={"training": training}), trials=trials)


def test_the_engine_is_measured(trial_config: Any, points: Path, images: Path) -> None:
    tiny = config_of(trial_config, "mlp tanh", 0)
    measured = measure([left_open(tiny, trials=7)], points, CPU, NoProgress())
    assert (measured.engine.name, measured.engine.members >= 4) == ("stacks", True)
    assert measured.gain > 1.0
    in_pairs = measure([left_open(tiny, trials=2)] * 3, points, CPU, NoProgress())
    assert in_pairs.engine == Engine(name="stacks", members=2)
