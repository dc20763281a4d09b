"""Artifacts in a folder, and by a URL: the same for who reads them, whatever the place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.storage.s3 import s3_server
from tuner.errors import ArtifactError
from tuner.settings import read_settings
from tuner.storage.artifacts import ArtifactFolder, ArtifactStore, TrialArtifacts, open_store
from tuner.storage.object_store import ObjectStore

# In a process of its own.
OPEN = (
    "from tuner.settings import read_settings; from tuner.storage.artifacts import open_store; "
    "store = open_store(read_settings())"
)

Machine = Callable[[str], ArtifactStore]  # the store as a machine of that name opens it


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of a bucket of a real server."""
    with s3_server() as url:
        yield url


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "folder":
            return str(tmp_path / "shared")
        case "file":
            return f"file://{tmp_path}/shared"
        case "memory":
            return f"memory://{tmp_path}"
        case _:
            return f"{request.getfixturevalue('s3')}{tmp_path}"


@pytest.fixture
def machine(place: str, tmp_path: Path) -> Machine:
    return lambda name: store_at(place, tmp_path / name)


def store_at(place: str, home: Path) -> ArtifactStore:
    return open_store(read_settings({"TUNER_ARTIFACTS": place, "TUNER_HOME": str(home)}))


def files_of(store: ArtifactStore, trial_id: int = 17, study: str = "3") -> TrialArtifacts:
    return TrialArtifacts(root=store.root, study=study, trial_id=trial_id)


def write(store: ArtifactStore, path: Path, content: bytes = b"weights") -> str:
    """Writes as the training does, and brings it to where it stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    stored = path.relative_to(store.root).as_posix()
    if isinstance(store, ObjectStore):
        store.push(stored)
    return stored


def checkpoint(store: ArtifactStore, attempt: int, epoch: int, trial_id: int = 17, study: str = "3") -> str:
    return write(store, files_of(store, trial_id, study).attempt(attempt) / f"{epoch}.ckpt")


def exists(store: ArtifactStore, stored: str) -> bool:
    return store.local(stored).is_file()


# --- every place ----------------------------------------------------------------------------------------------------


def test_what_one_machine_writes_another_reads(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    here.check_writable()
    stored = checkpoint(here, 2, 5)
    assert stored == "3/17/2/5.ckpt"
    assert there.fetch(stored).read_bytes() == b"weights"


def test_a_log_that_grows_is_read_as_it_stands(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    log = files_of(here).log(1)
    stored = write(here, log, b"epoch 1\n")
    assert there.local(stored).read_bytes() == b"epoch 1\n"
    write(here, log, b"epoch 1\nepoch 2\n")
    assert there.local(stored).read_bytes() == b"epoch 1\nepoch 2\n"


def test_a_sweep_leaves_the_pointed_checkpoint_logs_and_what_comes_after(machine: Machine) -> None:
    store = machine("here")
    gone = [checkpoint(store, 1, 1), checkpoint(store, 1, 12), checkpoint(store, 3, 4)]
    pointed = checkpoint(store, 3, 10)
    kept = [
        pointed,
        checkpoint(store, 3, 11),
        checkpoint(store, 4, 5),
        checkpoint(store, 1, 1, trial_id=18),
        write(store, files_of(store).log(1), b"epoch 1"),
    ]
    store.sweep(pointed)
    there = machine("there")
    assert not any(exists(there, stored) for stored in gone)
    assert all(exists(there, stored) for stored in kept)


def test_a_sweep_needs_no_files(machine: Machine) -> None:
    machine("here").sweep("3/17/2/1.ckpt")


@pytest.mark.parametrize("stored", ["../outside", "/etc/passwd", "3/../../outside"])
def test_what_lies_outside_is_refused(machine: Machine, tmp_path: Path, stored: str) -> None:
    (tmp_path / "outside").write_text("")
    with pytest.raises(ArtifactError, match="outside"):
        machine("here").fetch(stored)


def test_a_missing_file_hints_at_the_place(machine: Machine, place: str) -> None:
    with pytest.raises(ArtifactError, match="TUNER_ARTIFACTS") as caught:
        machine("here").fetch("3/17/1/1.ckpt")
    assert place in str(caught.value)


def test_removing_a_study_removes_its_files_only(machine: Machine) -> None:
    store = machine("here")
    stored, other = checkpoint(store, 1, 1), checkpoint(store, 1, 1, study="4")
    assert store.find_study("3") == f"{store.place}/3"
    store.remove_study("3")
    store.remove_study("3")
    there = machine("there")
    assert there.find_study("3") is None
    assert not exists(there, stored)
    assert exists(there, other)


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactFolder:
    return ArtifactFolder(tmp_path / "artifacts")


def test_a_sweep_of_a_folder_removes_what_was_torn(folder: ArtifactFolder) -> None:
    files = files_of(folder)
    write(folder, files.attempt(1) / ".3.ckpt.7.unfinished")
    pointed = checkpoint(folder, 2, 1)
    running = files.attempt(2) / ".2.ckpt.8.unfinished"
    write(folder, running)
    folder.sweep(pointed)
    assert [path.name for path in files.folder.iterdir()] == ["2"]
    assert running.exists()


def test_no_symlink_is_followed(folder: ArtifactFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(ArtifactFolder(elsewhere), elsewhere / "precious")
    pointed = checkpoint(folder, 2, 1)
    files_of(folder).attempt(1).symlink_to(elsewhere)
    folder.sweep(pointed)
    assert (elsewhere / "precious").exists()
    with pytest.raises(ArtifactError, match="outside"):
        folder.fetch("3/17/1/precious")


def test_a_folder_is_made_and_left_empty(folder: ArtifactFolder) -> None:
    folder.check_writable()
    assert list(folder.root.iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "memory://"], ids=["folder", "scratch"])
def test_a_full_disk_is_said(prefix: str, small_disk: Path) -> None:
    store = store_at(f"{prefix}{small_disk}", small_disk)
    assert store.root.exists()
    with suppress(OSError), (small_disk / "fill").open("wb", buffering=0) as fill:
        while True:
            fill.write(b"\0" * 4096)
    with pytest.raises(ArtifactError, match="No space left"):
        store.check_writable()


def test_a_folder_needs_no_fsspec() -> None:
    code = "import sys, tuner.worker.run, tuner.cli.main; sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- URLs -----------------------------------------------------------------------------------------------------------


def test_a_probe_is_left_nowhere(tmp_path: Path) -> None:
    store = store_at(f"file://{tmp_path}/shared", tmp_path / "home")
    store.check_writable()
    assert list((tmp_path / "shared").iterdir()) == []


def test_scratch_folders_go_with_their_process(tmp_path: Path) -> None:
    """Also those of processes that were killed; never those of others that live."""
    url = f"file://{tmp_path}/shared"
    killed, living = (
        subprocess.Popen(
            [sys.executable, "-c", f"{OPEN}; print(store.root, flush=True); input()"],
            env={**os.environ, "TUNER_ARTIFACTS": url, "TUNER_HOME": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    assert killed.stdout
    assert living.stdout
    left, used = Path(killed.stdout.readline().strip()), Path(living.stdout.readline().strip())
    killed.kill()
    killed.communicate()
    assert left.exists()
    store = store_at(url, tmp_path)
    assert store.root.exists()
    assert used.exists()
    assert not left.exists()
    living.communicate("\n")
    assert not used.exists()


@pytest.mark.parametrize(
    "url",
    ["s3://AKIA:hunter2@bucket/prefix", "s3://AKIA:hun/ter2@bucket", "abfs://c@a.dfs.net/x?sig=hunter2"],
)
def test_credentials_in_a_url_are_refused_and_not_shown(url: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="environment") as caught:
        store_at(url, tmp_path)
    assert "ter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://bucket/prefix", "nonsense://"),
        ("simplecache::s3://bucket", "simplecache::s3://"),
        ("s3://", "bucket/prefix"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        store_at(url, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/x", "s3fs"), ("sftp://host/x", "paramiko")])
def test_a_missing_package_is_named(url: str, package: str, tmp_path: Path) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ArtifactError, match=f"{url}.*: pip install {package}$"):
        store_at(url, tmp_path)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_place_that_cannot_be_written_is_named(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot write.*file/folder") as caught:
        store_at(f"{prefix}{tmp_path}/file/folder", tmp_path / "home").check_writable()
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_one_line(s3: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"s3://no-such-bucket/x.*bucket does not exist") as caught:
        store_at("s3://no-such-bucket/x", tmp_path).check_writable()
    assert "\n" not in str(caught.value)


def test_missing_credentials_are_one_line(s3: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "AWS_ACCESS_KEY_ID"}
    environment |= {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", f"{OPEN}; store.check_writable()"],
        env={**environment, "TUNER_ARTIFACTS": s3, "TUNER_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last == f"tuner.errors.ArtifactError: cannot write to the artifacts at {s3}: Unable to locate credentials"
