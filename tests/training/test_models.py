from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tuner.spec.config import CnnConfig, MlpConfig, ModelConfig, RnnConfig
from tuner.training.data import DataInfo
from tuner.training.errors import InfeasibleModel
from tuner.training.models import build, materialise, parameter_count
from tuner.training.models.layers import Dropout, Normalise
from tuner.training.models.rnn import Recurrent


def image_info(channels: int = 1, side: int = 8) -> DataInfo:
    return info("classification", "image", (channels, side, side), outputs=10)


def info(task: str, kind: str, shape: tuple[int, ...], outputs: int, target_feature: int | None = None) -> DataInfo:
    return DataInfo(
        task=task,
        kind=kind,
        input_shape=shape,
        outputs=outputs,
        mean=3.0,
        std=2.0,
        sizes={},
        target_feature=target_feature,
        baselines={},
        digest="",
    )


FORECAST = info("forecast", "sequence", (12, 4), outputs=5, target_feature=2)


def model_of(config: ModelConfig, about: DataInfo, seed: int = 0) -> nn.Module:
    return materialise(build(config, about), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("config", "about"),
    [
        (CnnConfig(layers=3, channels=(4, 8, 6)), image_info()),
        (CnnConfig(kernel=4, pooling="average", batch_norm=False, dense_units=0), image_info(channels=3, side=9)),
        (CnnConfig(kernel=15, pooling="none", dropout=0.5, activation="gelu"), image_info()),
        (RnnConfig(layers=2, units=(5, 7), bidirectional=True, dropout=0.2), image_info(channels=3)),
        (RnnConfig(cell="gru", units=6, relative_to_last=True), FORECAST),
        (MlpConfig(layers=0), FORECAST),
        (MlpConfig(layers=3, units=(9, 8, 7), activation="silu", dropout=0.1), image_info()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_has_the_outputs_of_its_data_and_as_many_parameters_as_were_counted(
    config: ModelConfig, about: DataInfo
) -> None:
    model = model_of(config, about).eval()
    assert model(torch.randn(6, *about.input_shape)).shape == (6, about.outputs)
    assert parameter_count(config, about) == sum(parameter.numel() for parameter in model.parameters())


def test_parameters_of_a_cnn_counted_by_hand() -> None:
    convolutions = 1 * 32 * 9 + 32 * 32 * 9  # without bias before a batch norm
    norms = 2 * (32 + 32)
    dense = (2 * 2 * 32) * 64 + 64
    assert parameter_count(CnnConfig(), image_info()) == convolutions + norms + dense + 64 * 10 + 10
    without_norm = CnnConfig(batch_norm=False)
    assert parameter_count(without_norm, image_info()) == convolutions + (32 + 32) + dense + 64 * 10 + 10


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 15])
def test_convolutions_keep_the_size_of_the_map(kernel: int, side: int) -> None:
    model = model_of(CnnConfig(layers=2, channels=2, kernel=kernel, pooling="none", dense_units=0), image_info(1, side))
    assert model[-1].in_features == 2 * side * side


def test_pooling_before_a_monotone_activation_changes_no_bit() -> None:
    model = model_of(CnnConfig(layers=1, channels=4, dense_units=0), image_info())
    convolution, norm, pooling, activation, *rest = model
    assert isinstance(pooling, nn.MaxPool2d)
    assert isinstance(activation, nn.ReLU)
    inputs = torch.randn(16, 1, 8, 8)
    usual = nn.Sequential(convolution, norm, activation, pooling, *rest)
    assert torch.equal(model(inputs), usual(inputs))


def test_pooling_comes_after_an_activation_that_is_not_monotone() -> None:
    modules = [type(module) for module in build(CnnConfig(activation="gelu"), image_info())]
    assert modules.index(nn.GELU) < modules.index(nn.MaxPool2d)


def test_pooling_until_nothing_is_left_is_infeasible() -> None:
    parameter_count(CnnConfig(layers=3), image_info())
    with pytest.raises(InfeasibleModel, match="a map of 1 x 1 is left after 3 of 4 layers"):
        parameter_count(CnnConfig(layers=4), image_info())
    parameter_count(CnnConfig(layers=4, pooling="none"), image_info())


@pytest.mark.parametrize(
    ("config", "about", "reason"),
    [
        (CnnConfig(), FORECAST, "cnn reads no sequence data"),
        (RnnConfig(), info("classification", "vector", (2,), 2), "rnn reads no vector data"),
        (RnnConfig(relative_to_last=True), image_info(), "relative_to_last is for forecasts"),
        (
            RnnConfig(relative_to_last=True),
            info("forecast", "sequence", (12, 4), 5),
            "relative_to_last needs the target among data.inputs",
        ),
        (MlpConfig(layers=3, units=(8, 8)), FORECAST, "model.units holds 2 values for 3 layers"),
    ],
)
def test_what_cannot_be_built_says_why(config: ModelConfig, about: DataInfo, reason: str) -> None:
    with pytest.raises(InfeasibleModel, match=reason):
        build(config, about)


@pytest.mark.parametrize(("cell", "stacked"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_one_by_one_equal_torchs_stack(cell: str, stacked: type[nn.RNNBase], bidirectional: bool) -> None:
    config = RnnConfig(cell=cell, layers=2, units=6, bidirectional=bidirectional)
    ours = materialise(Recurrent(config, 4).to("meta"), torch.Generator().manual_seed(0))
    theirs = stacked(4, 6, num_layers=2, batch_first=True, bidirectional=bidirectional)
    weights = {}
    for layer, one in enumerate(ours.cells):
        weights |= {name.replace("l0", f"l{layer}"): tensor for name, tensor in one.state_dict().items()}
    theirs.load_state_dict(weights)
    inputs = torch.randn(5, 12, 4)
    state = theirs(inputs)[1]
    hidden = state[0] if cell == "lstm" else state
    last = hidden[-2:].transpose(0, 1).flatten(1) if bidirectional else hidden[-1]
    torch.testing.assert_close(ours(inputs), last)


def test_a_forecast_relative_to_the_last_value_adds_it_in_the_targets_units() -> None:
    model = model_of(RnnConfig(relative_to_last=True), FORECAST)
    raw = torch.randn(7, 12, 4)
    normalised = Normalise(FORECAST.mean, FORECAST.std)(raw)
    difference = model.model(normalised)
    torch.testing.assert_close(model(normalised) - difference, raw[:, -1, 2:3].expand(7, 5))


def test_images_are_read_row_by_row() -> None:
    model = model_of(RnnConfig(), image_info(channels=3))
    image = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).float()
    rows = model[0](image)
    assert rows.shape == (2, 8, 24)
    assert torch.equal(rows[1, 5], torch.cat([image[1, channel, 5] for channel in range(3)]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(20, 300),
        lambda: nn.Conv2d(3, 40, 5),
        lambda: nn.LSTM(6, 50, bidirectional=True),
        lambda: nn.GRU(6, 50),
    ],
    ids=["linear", "convolution", "lstm", "gru"],
)
def test_initial_weights_are_distributed_as_torchs_own(make: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = dict(make().named_parameters())
    ours = dict(materialise(make().to("meta"), torch.Generator().manual_seed(1)).named_parameters())
    for name, expected in theirs.items():
        assert ours[name].abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.15)
        assert ours[name].std().item() == pytest.approx(expected.std().item(), rel=0.15)
        assert not torch.equal(ours[name], expected)


def test_weights_follow_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (model_of(CnnConfig(), image_info(), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    layer = Dropout(0.25)
    layer.generator = torch.Generator().manual_seed(0)
    outputs = layer(torch.ones(100, 1000))
    assert (outputs == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert outputs.mean().item() == pytest.approx(1.0, abs=0.01)
    layer.generator.manual_seed(0)
    assert torch.equal(layer(torch.ones(100, 1000)), outputs)
    assert torch.equal(layer.eval()(outputs), outputs)


def test_dropout_never_falls_back_to_global_draws() -> None:
    with pytest.raises(RuntimeError, match="generator"):
        Dropout(0.5)(torch.ones(3))


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_images_have_the_fast_layout(channels: int) -> None:
    raw = torch.randint(0, 256, (5, channels, 8, 6), dtype=torch.uint8)
    inputs = Normalise(10.0, 4.0)(raw)
    assert inputs.stride() == (48 * channels, 1, 6 * channels, channels)
    assert torch.equal(inputs, (raw.float() - 10.0) / 4.0)
