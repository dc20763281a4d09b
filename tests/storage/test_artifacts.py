from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.errors import ArtifactError
from tuner.storage.artifacts import TrialArtifacts, check_writable, remove_study, resolve


@pytest.fixture
def trial(tmp_path: Path) -> TrialArtifacts:
    return TrialArtifacts(root=tmp_path / "artifacts", study="3", trial_id=17)


def checkpoint(trial: TrialArtifacts, attempt: int, epoch: int) -> Path:
    path = trial.attempt(attempt) / f"{epoch}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def test_paths_are_made_of_numbers(trial: TrialArtifacts) -> None:
    assert trial.log.relative_to(trial.root).as_posix() == "3/17/log.txt"
    path = checkpoint(trial, 2, 5)
    assert trial.relative(path) == "3/17/2/5.ckpt"
    assert resolve(trial.root, trial.relative(path)) == path


def test_a_sweep_leaves_the_pointed_checkpoint_and_what_comes_after(trial: TrialArtifacts) -> None:
    gone = [checkpoint(trial, 1, 1), checkpoint(trial, 2, 3).with_suffix(".torn"), checkpoint(trial, 3, 4)]
    gone[1].write_bytes(b"torn")
    pointed = checkpoint(trial, 3, 10)
    kept = [pointed, checkpoint(trial, 3, 11), checkpoint(trial, 4, 5), trial.attempt(3) / ".12.ckpt.7.unfinished"]
    kept[-1].write_bytes(b"being written")
    trial.log.write_text("")
    trial.sweep(3, trial.relative(pointed))
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    assert sorted(path.name for path in trial.folder.iterdir()) == ["3", "4", "log.txt"]


def test_a_sweep_follows_no_symlink_and_needs_no_folder(trial: TrialArtifacts, tmp_path: Path) -> None:
    pointed = trial.relative(trial.attempt(2) / "1.ckpt")
    trial.sweep(2, pointed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("")
    trial.folder.mkdir(parents=True)
    trial.attempt(1).symlink_to(elsewhere)
    trial.sweep(2, pointed)
    assert (elsewhere / "precious").exists()


@pytest.mark.parametrize("stored", ["../outside", "/etc/passwd", "3/link"])
def test_what_lies_outside_is_refused(trial: TrialArtifacts, tmp_path: Path, stored: str) -> None:
    (tmp_path / "outside").write_text("")
    (trial.root / "3").mkdir(parents=True)
    (trial.root / "3" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ArtifactError, match="outside"):
        resolve(trial.root, stored)


def test_a_missing_file_hints_at_the_folder(trial: TrialArtifacts) -> None:
    with pytest.raises(ArtifactError, match="TUNER_ARTIFACTS"):
        resolve(trial.root, "3/17/1/1.ckpt")


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "artifacts")
    assert list((tmp_path / "new" / "artifacts").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="file"):
        check_writable(tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs root, to mount a small tmpfs")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {tmp_path} 2>/dev/null") != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        (tmp_path / "fill").write_bytes(b"\0" * 64 * 1024)
        with pytest.raises(ArtifactError, match="No space left"):
            check_writable(tmp_path)
    finally:
        os.system(f"umount {tmp_path}")


def test_removing_a_study_removes_its_files_only(trial: TrialArtifacts) -> None:
    checkpoint(trial, 1, 1)
    other = checkpoint(TrialArtifacts(root=trial.root, study="4", trial_id=1), 1, 1)
    remove_study(trial.root, "3")
    remove_study(trial.root, "3")
    assert not (trial.root / "3").exists()
    assert other.exists()
