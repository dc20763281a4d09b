from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tuner
from tuner.errors import ArtifactError, NotFound
from tuner.training import checkpoint, data
from tuner.training.course import Member
from tuner.training.evaluation import evaluate
from tuner.training.export import export, load_model
from tuner.training.resident import Resident
from tuner.training.state import State

MSE = {"metric": "mse"}
MODELS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("images", {"family": "cnn", "channels": (4, 8), "dropout": 0.2}, {"metric": "loss"}),
    ("images", {"family": "rnn", "layers": 2, "units": 6, "bidirectional": True}, {"metric": "loss"}),
    ("windows", {"family": "rnn", "cell": "gru", "units": 6, "relative_to_last": True}, MSE),
    ("points", {"family": "mlp", "units": 6}, {"metric": "accuracy"}),
]


@pytest.fixture
def exported(
    images: Path, trial_config: Any, run: Any, tmp_path: Path
) -> Callable[[], tuple[Path, list[dict[str, float]]]]:
    """An export of a CNN whose best epoch is not its last, and its curve."""

    def make() -> tuple[Path, list[dict[str, float]]]:
        config = trial_config({"family": "cnn", "channels": 8}, {"metric": "loss"}, epochs=8, learning_rate=0.2)
        training = run(config, images, tmp_path / "run")
        export(config, training.checkpoints[-1], data.info(images), tmp_path / "model")
        return tmp_path / "model", training.curve

    return make


def raw(folder: Path, part: str = "validation") -> torch.Tensor:
    return torch.tensor(data.part(folder, part).inputs.copy())


@pytest.mark.parametrize(("name", "model", "objective"), MODELS, ids=["cnn", "lstm", "gru", "mlp"])
def test_the_export_predicts_from_raw_inputs_as_the_trained_model_did(
    name: str, model: Any, objective: Any, request: Any, trial_config: Any, run: Any, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(name)
    config = trial_config(model, {**objective, "value": "last"}, learning_rate=1e-5)
    training = run(config, folder, tmp_path / "run")
    export(config, training.checkpoints[-1], data.info(folder), tmp_path / "model")
    shutil.move(tmp_path / "model", tmp_path / "moved")
    loaded = load_model(tmp_path / "moved")

    in_loop = State(Member(config=config, seed=0, number=0), folder, torch.device("cpu"))
    in_loop.restore(in_loop.course, checkpoint.load(training.checkpoints[-1]))
    in_loop.model.eval()
    inputs = raw(folder)[:16]
    with torch.inference_mode():
        (normalised, _), *_ = in_loop.validation_part.batches(16)
        assert torch.equal(loaded(inputs), in_loop.model(normalised))


def test_the_export_is_of_the_best_epoch(exported: Any, images: Path) -> None:
    folder, curve = exported()
    losses = [metrics["loss"] for metrics in curve]
    assert min(losses) < losses[-1], "the last epoch must not be the best, or nothing is shown"
    normalise, model = load_model(folder)
    part = Resident(data.part(images, "validation"), data.info(images), torch.device("cpu"))
    assert evaluate(model, part, "classification")["loss"] == min(losses)
    assert f"epoch: {losses.index(min(losses)) + 1}\n" in (folder / "config.yaml").read_text()
    assert {entry.name for entry in folder.iterdir()} == {"config.yaml", "model.safetensors"}
    assert normalise.mean == data.info(images).mean


def test_the_loaded_model_is_ready_to_predict(exported: Any, images: Path) -> None:
    model = tuner.load_model(str(exported()[0]))
    assert not model.training
    arrays = data.part(images, "test")
    outputs = model(torch.tensor(arrays.inputs.copy()))
    assert outputs.shape == (30, 3)
    assert all(parameter.requires_grad for parameter in model.parameters()), "it may be trained on"


def test_exporting_again_replaces(exported: Any) -> None:
    assert exported()[0] == exported()[0]


def test_no_export_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no exported model in .*: No such file or directory: .*config\.yaml"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.yaml", b"trial: [1"),
        ("config.yaml", b"trial: {}\n"),
        ("config.yaml", b"\xff\xfe\xfa"),
        ("config.yaml", b""),
        ("model.safetensors", b"\x00" * 40),
    ],
)
def test_a_damaged_export_is_refused(file: str, content: bytes, exported: Any) -> None:
    folder, _ = exported()
    (folder / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=str(folder)) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(exported: Any) -> None:
    folder, _ = exported()
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("channels: 8", "channels: 9"))
    with pytest.raises(ArtifactError, match="belong to another model"):
        load_model(folder)


def test_an_export_to_nowhere_names_the_place(images: Path, trial_config: Any, run: Any, tmp_path: Path) -> None:
    config = trial_config({"family": "mlp"}, epochs=1)
    training = run(config, images, tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"cannot export to .*file/model: Not a directory"):
        export(config, training.checkpoints[-1], data.info(images), tmp_path / "file" / "model")
