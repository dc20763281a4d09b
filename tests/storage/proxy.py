"""Stands between a client and PostgreSQL: counts the client's messages, and cuts connections at chosen moments."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace
from enum import Enum, auto

from tuner.storage.url import parse


class Cut(Enum):
    BEFORE = auto()  # the next query never reaches the server
    AFTER = auto()  # the next query is done, and its answer lost


class Proxy:
    """`url` leads to the database through this; `queries` counts what went through."""

    def __init__(self, url: str) -> None:
        address = parse(url)
        self._server = (address.hosts[0], int(address.ports[0] or 5432))
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        self.url = replace(address, hosts=("127.0.0.1",), ports=(str(port),), options={"sslmode": "disable"}).url
        self.queries = 0
        self.cut: Cut | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, self._connect() as server, contextlib.suppress(OSError, EOFError):
            server.sendall(_startup(client))
            muted = threading.Event()
            threading.Thread(target=self._answer, args=[server, client, muted], daemon=True).start()
            while True:
                message = _message(client)
                if message[:1] == b"Q":
                    self.queries += 1
                    cut, self.cut = self.cut, None
                    if cut is Cut.BEFORE:
                        return
                    if cut is Cut.AFTER:
                        muted.set()
                server.sendall(message)

    def _answer(self, server: socket.socket, client: socket.socket, muted: threading.Event) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                message = _message(server)
                if not muted.is_set():
                    client.sendall(message)
                elif message[:1] == b"Z":  # ready for another query: this one was committed
                    client.shutdown(socket.SHUT_RDWR)
                    return
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> socket.socket:
        host, port = self._server
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


def _startup(client: socket.socket) -> bytes:
    length = _exactly(client, 4)
    return length + _exactly(client, int.from_bytes(length) - 4)


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)  # kind, length
    return head + _exactly(source, int.from_bytes(head[1:]) - 4)


def _exactly(source: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        piece = source.recv(count - len(read))
        if not piece:
            raise EOFError
        read += piece
    return read
