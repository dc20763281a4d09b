from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tuner.storage.connection import Database
from tuner.storage.server import EmbeddedServer


@pytest.fixture
def password_server(open_folder: Path) -> Callable[[str | None], str]:
    """Gives URLs, with any password or none, of a server on TCP that wants the password "right@1" of user ann."""
    server = EmbeddedServer(open_folder / "postgres-scram", durable=False)
    with Database(server.start()) as db:
        db.execute("CREATE ROLE ann LOGIN PASSWORD 'right@1'; ALTER DATABASE tuner OWNER TO ann")
    server.stop()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = server.folder / "data"
    (data / "local.conf").write_text(f"listen_addresses = '127.0.0.1'\nport = {port}\n")
    (data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")

    def url(password: str | None) -> str:
        return f"postgresql://ann{'' if password is None else ':' + quote(password)}@127.0.0.1:{port}/tuner"

    server.start()
    return url  # `open_folder` removes the server
