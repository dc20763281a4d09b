"""A real S3 server on this machine, for tests: needs moto's server and s3fs, which are no part of the dev extra."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest.mock import patch

import pytest

BUCKET = "artifacts"


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of an empty bucket; the environment says where it is and how to log in. Skips where it cannot start."""
    pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[server]' s3fs")
    s3fs = pytest.importorskip("s3fs", reason="no S3 client: pip install s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        with patch.dict(os.environ, environment):
            s3fs.S3FileSystem.clear_instance_cache()  # of a server before
            s3fs.S3FileSystem().mkdir(BUCKET)
            yield f"s3://{BUCKET}"
    finally:
        server.kill()
        server.wait()
