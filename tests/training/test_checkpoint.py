from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.errors import ArtifactError
from tuner.spec.stacking import with_engine
from tuner.training import checkpoint
from tuner.training.checkpoint import Best, Checkpoint, load, save
from tuner.training.checkpoint_file import MAGIC


@pytest.fixture
def record() -> Checkpoint:
    generator = torch.Generator().manual_seed(0)
    weights = {"0.weight": torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last)}
    return Checkpoint(
        digest="abc",
        epoch=2,
        model=weights,
        optimizer={"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        best=Best(epoch=1, value=0.5, model={"0.weight": torch.ones(2)}),
        curve=({"loss": 0.7}, {"loss": 0.5}),
        seconds=1.5,
    )


def test_what_was_saved_is_loaded(record: Checkpoint, tmp_path: Path, equal_to_the_bit: Any) -> None:
    path = tmp_path / "new" / "folder" / "2.ckpt"
    save(record, path)
    loaded = load(path)
    assert equal_to_the_bit({**vars(loaded), "best": vars(loaded.best)}, {**vars(record), "best": vars(record.best)})
    assert loaded.model["0.weight"].stride() == record.model["0.weight"].stride()
    assert [entry.name for entry in path.parent.iterdir()] == ["2.ckpt"]


def test_a_torn_or_changed_file_is_refused(record: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "2.ckpt"
    save(record, path)
    whole = path.read_bytes()
    places = random.Random(0)
    for _ in range(100):
        path.write_bytes(whole[: places.randrange(len(whole))])
        with pytest.raises(ArtifactError, match=r"2\.ckpt"):
            load(path)
        changed = bytearray(whole)
        changed[places.randrange(len(whole))] ^= 1 << places.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"2\.ckpt"):
            load(path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        load(tmp_path / "missing.ckpt")
    with pytest.raises(ArtifactError, match="Is a directory"):
        load(tmp_path)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"model": torch.ones(2)}, foreign)
    with pytest.raises(ArtifactError, match="no checkpoint of this version"):
        load(foreign)


class Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch attacked",)


@pytest.mark.parametrize("content", [{"epoch": 1}, [1, 2], {"model": Attack()}], ids=["incomplete", "list", "code"])
def test_contents_that_are_not_ours_are_refused_and_never_run(
    content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = tmp_path / "1.ckpt"
    path.write_bytes(MAGIC + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    with pytest.raises(ArtifactError, match="no checkpoint of this version"):
        load(path)
    assert not (tmp_path / "attacked").exists()


def test_a_full_disk_leaves_the_old_checkpoint(record: Checkpoint, small_disk: Path, equal_to_the_bit: Any) -> None:
    path = small_disk / "2.ckpt"
    save(record, path)
    larger = replace(record, epoch=3, model={"0.weight": torch.ones(2_000_000)})
    with pytest.raises(ArtifactError, match=f"cannot write the checkpoint {path}: No space left on device"):
        save(larger, path)
    assert load(path).epoch == 2
    assert [entry.name for entry in small_disk.iterdir()] == ["2.ckpt"]


def test_a_file_size_limit_leaves_the_old_checkpoint(record: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "2.ckpt"
    save(record, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(ArtifactError, match="File too large"):
            save(replace(record, epoch=3), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load(path).epoch == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["2.ckpt"]


def test_a_folder_that_is_swept_meanwhile_is_made_again(
    record: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, equal_to_the_bit: Any
) -> None:
    """As of a trial that another worker has, and this process does not know it yet: it must not end its worker."""
    path, rename = tmp_path / "1" / "5.ckpt", Path.rename
    swept: list[Path] = []

    def swept_before(unfinished: Path, target: Path) -> Path:
        if not swept:
            swept.append(unfinished)
            shutil.rmtree(unfinished.parent)
        return rename(unfinished, target)

    monkeypatch.setattr(Path, "rename", swept_before)
    save(record, path)
    assert swept
    equal_to_the_bit(load(path).model, record.model)


def test_a_folder_that_cannot_be_made_is_named(record: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"cannot write the checkpoint .*file/2\.ckpt"):
        save(record, tmp_path / "file" / "2.ckpt")


def test_a_checkpoint_of_before_engines_goes_on(trial_config: Any) -> None:
    """Its digest knew neither them nor precision; what they say by default was true then."""
    config = trial_config({"family": "mlp"})
    record = config.model_dump(mode="json")
    del record["training"]["engine"], record["training"]["precision"]
    document = {"config": record, "seed": 1, "number": 2, "data": "d"}
    before = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert checkpoint.digest(with_engine(config, "single"), 1, 2, "d") == before
    assert checkpoint.digest(with_engine(config, "stacks"), 1, 2, "d") != before
