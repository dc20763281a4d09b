"""Stands between workers and their database, and loses answers: to a statement that has been committed already.

It understands as much of PostgreSQL's protocol as that takes: a client's message is answered by messages up to
ReadyForQuery, which says whether a transaction is open.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tuner.storage.server import PORT
from tuner.storage.url import parse

READY, ERROR, TERMINATE = b"Z", b"E", b"X"
IDLE = b"I"  # of ReadyForQuery: no transaction is open

# What a statement is, by a mark of its own, and how large a share of its answers is lost: the rare ones more often.
KINDS = {
    "claims": (r"SKIP LOCKED", 0.5),
    "points": (r"INSERT INTO trial_params", 0.5),
    "ends": (r"finish_seq = ", 0.5),
    "reports": (r"INSERT INTO trial_intermediate_values", 0.1),
    "renewals": (r"UPDATE tuner.worker SET last_seen", 0.5),
    "give-backs": (r"lease_until = NULL", 0.5),
}


class Proxy:
    """`url` leads through it. While `cuts_left` is above zero it loses answers at random."""

    def __init__(self, url: str, rng: random.Random) -> None:
        address = parse(url)
        self._server = f"{address.hosts[0]}/.s.PGSQL.{PORT}"
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-")
        self.url = replace(address, hosts=(self._folder.name,)).url
        self.cuts_left = 0
        self.cut: Counter[str] = Counter()
        self._rng = rng
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._folder.name) / f".s.PGSQL.{PORT}"))
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

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
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError, EOFError):
            server.connect(self._server)
            length = _exactly(client, 4)
            server.sendall(length + _exactly(client, struct.unpack("!I", length)[0] - 4))
            client.sendall(_answer(server)[0])
            while True:
                kind, message = _message(client)
                server.sendall(message)
                if kind == TERMINATE:
                    return
                answer, committed = _answer(server)
                if committed and self._cuts(message[5:].decode(errors="replace")):
                    return
                client.sendall(answer)

    def _cuts(self, statement: str) -> bool:
        kind, share = next(
            ((kind, share) for kind, (mark, share) in KINDS.items() if re.search(mark, statement)), ("", 0)
        )
        with self._lock:
            if self.cuts_left <= 0 or self._rng.random() >= share:
                return False
            self.cuts_left -= 1
            self.cut[kind] += 1
            return True


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
