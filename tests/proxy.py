"""Stands between clients and PostgreSQL, and breaks connections at chosen moments.

It understands as much of the protocol as that takes: a client's message is answered by messages up to ReadyForQuery,
which says whether a transaction is open.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Self

from tuner.storage.server import PORT
from tuner.storage.url import parse

QUERY, READY, ERROR, TERMINATE = b"Q", b"Z", b"E", b"X"
IDLE = b"I"  # of ReadyForQuery: no transaction is open


class Proxy:
    """`url` leads to the database through it."""

    def __init__(self, url: str) -> None:
        address = parse(url)
        self._server = address.hosts[0], int(address.ports[0] or PORT)
        self._folder = tempfile.TemporaryDirectory(prefix="proxy-")
        self.url = replace(address, hosts=(self._folder.name,), ports=("",), options={}).url
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._folder.name) / f".s.PGSQL.{PORT}"))
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    def refuses(self, statement: str) -> bool:
        """Whether the connection breaks before this statement has come to the server."""
        return False

    def loses(self, statement: str) -> bool:
        """Whether it breaks now that the statement has been committed, before its answer has come to the client."""
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, self._connect() as server, contextlib.suppress(OSError, EOFError):
            length = _exactly(client, 4)
            server.sendall(length + _exactly(client, struct.unpack("!I", length)[0] - 4))
            client.sendall(_answer(server)[0])
            while True:
                kind, message = _message(client)
                statement = message[5:-1].decode(errors="replace") if kind == QUERY else ""
                if kind == QUERY and self.refuses(statement):
                    return
                server.sendall(message)
                if kind == TERMINATE:
                    return
                answer, committed = _answer(server)
                if kind == QUERY and committed and self.loses(statement):
                    return
                client.sendall(answer)

    def _connect(self) -> socket.socket:
        host, port = self._server
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


def _answer(server: socket.socket) -> tuple[bytes, bool]:
    """All that the server says to one message, and whether it has been committed by then."""
    said, failed = b"", False
    while True:
        kind, message = _message(server)
        said += message
        failed = failed or kind == ERROR
        if kind == READY:
            return said, message[5:6] == IDLE and not failed


def _message(sender: socket.socket) -> tuple[bytes, bytes]:
    """The kind, and the whole of it."""
    head = _exactly(sender, 5)
    return head[:1], head + _exactly(sender, struct.unpack("!I", head[1:])[0] - 4)


def _exactly(sender: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = sender.recv(size - len(received))
        if not piece:
            raise EOFError
        received += piece
    return received
