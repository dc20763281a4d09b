from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tuner.errors import DataError
from tuner.settings import Settings
from tuner.training.data.sources import SourceFile, read_sources

CONTENT = b"date,load\n" + b"2016-07-01 00:00:00,5.827\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DEAD = "http://127.0.0.1:9/load.csv"  # the discard port: refused at once
FILE = SourceFile(folder="station", name="load.csv", sha256=SHA256, mirrors=(DEAD,))


@pytest.fixture
def local(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a TUNER_DATA folder that has an empty folder for the file."""
    (tmp_path / "local" / "station").mkdir(parents=True)
    return replace(settings, data=tmp_path / "local")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which a real server serves it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield served, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def place(settings: Settings, name: str, content: bytes) -> Path:
    assert settings.data is not None
    path = settings.data / "station" / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "content"), [("load.csv", CONTENT), ("load.csv.gz", gzip.compress(CONTENT))])
def test_a_file_at_hand_is_read_plain_or_gzipped(local: Settings, name: str, content: bytes) -> None:
    place(local, name, content)
    assert read_sources([FILE], local) == [CONTENT]


def test_a_damaged_file_is_named_with_both_sums(local: Settings) -> None:
    damaged = CONTENT[:100] + b"?" + CONTENT[101:]
    path = place(local, "load.csv", damaged)
    with pytest.raises(DataError) as caught:
        read_sources([FILE], local)
    message = str(caught.value)
    assert message.startswith(f"{path} is damaged")
    assert SHA256 in message
    assert hashlib.sha256(damaged).hexdigest() in message
    assert "\n" not in message


@pytest.mark.parametrize("at", [0, 1, 30, -1])
def test_a_flipped_byte_in_a_gzip_file_is_noticed(local: Settings, at: int) -> None:
    packed = bytearray(gzip.compress(CONTENT))
    packed[at] ^= 0x10
    path = place(local, "load.csv.gz", bytes(packed))
    with pytest.raises(DataError, match=f"{path} is damaged"):
        read_sources([FILE], local)


def test_half_a_gzip_file_is_noticed(local: Settings) -> None:
    packed = gzip.compress(CONTENT)
    place(local, "load.csv.gz", packed[: len(packed) // 2])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_sources([FILE], local)


@pytest.mark.parametrize(("name", "content"), [("load.csv", CONTENT), ("load.csv.gz", gzip.compress(CONTENT))])
def test_downloads_from_the_first_mirror_that_works_and_only_once(
    settings: Settings, mirror: tuple[Path, str], name: str, content: bytes
) -> None:
    served, url = mirror
    (served / name).write_bytes(content)
    file = replace(FILE, mirrors=(DEAD, f"{url}/missing.csv", f"{url}/{name}"))
    assert read_sources([file], settings) == [CONTENT]
    (served / name).unlink()
    assert read_sources([file], settings) == [CONTENT]


@pytest.mark.parametrize("name", ["load.csv", "load.csv.gz"])
def test_a_mirror_with_other_contents_is_not_believed(settings: Settings, mirror: tuple[Path, str], name: str) -> None:
    served, url = mirror
    (served / name).write_bytes(b"<html>Log in to the hotel's network</html>")
    with pytest.raises(DataError, match=r"load\.csv not found, and the download failed"):
        read_sources([replace(FILE, mirrors=(f"{url}/{name}",))], settings)
    assert not list(settings.cache.rglob("*load*"))


def test_with_no_network_one_line_says_which_files_to_put_where(local: Settings) -> None:
    files = [replace(FILE, name=name) for name in ("a.csv", "load.csv", "c.csv")]
    place(local, "load.csv", CONTENT)
    with pytest.raises(DataError) as caught:
        read_sources(files, local)
    message = str(caught.value)
    assert message.startswith("station: a.csv, c.csv not found")
    assert "Connection refused" in message
    assert message.endswith(f"put them into {local.data}/station/, gzipped or not")


def test_without_a_data_folder_the_line_says_how_to_name_one(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"put it into \$TUNER_DATA/station/, .*, TUNER_DATA being"):
        read_sources([FILE], settings)
