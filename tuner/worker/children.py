"""Child processes as their supervisor holds them: started from a warm fork server, watched, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing import get_context

from tuner.training.progress import Phase
from tuner.worker import child
from tuner.worker.messages import Inbox, Message, encode
from tuner.worker.progress import SharedProgress
from tuner.worker.timing import PREPARE_SECONDS, START_SECONDS

_CONTEXT = get_context("forkserver")
_JOIN_SECONDS = 5.0
_GONE_SECONDS = 0.5


def prepare_fork_server() -> None:
    """To be called before the first child, once no secret stands in the environment any more: children inherit it."""
    _CONTEXT.set_forkserver_preload(["tuner.worker.preload"])


class Child:
    """One child process and the socket to it."""

    def __init__(self, device: str, slot: int, hang_seconds: float) -> None:
        self.socket, theirs = socket.socketpair()
        self._inbox = Inbox(self.socket)
        self._progress = SharedProgress(_CONTEXT)
        self._hang_seconds = hang_seconds
        self._seen, self._seen_at = self._progress.read(), time.monotonic()
        self._process = _CONTEXT.Process(target=child.main, args=(theirs, self._progress, device, slot), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, message: Message) -> None:
        # One that is gone is noticed by its end of file.
        with contextlib.suppress(OSError):
            self.socket.sendall(encode(message))

    def read(self) -> Iterator[Message]:
        """Raises EOFError once the child is gone, ValueError where it sends what is no message."""
        return self._inbox.read()

    def hung_for(self) -> float | None:
        """Seconds without a sign of life, where they are more than the child's phase allows."""
        seen, now = self._progress.read(), time.monotonic()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        silent = now - self._seen_at
        return silent if silent > self._limit() else None

    def _limit(self) -> float:
        match self._progress.phase:
            case Phase.IDLE:
                return float("inf")
            case Phase.PREPARE:
                return PREPARE_SECONDS
            case Phase.START:
                return max(START_SECONDS, self._hang_seconds)
            case Phase.TRAIN | Phase.EVALUATE | Phase.SAVE:
                return self._hang_seconds

    def kill(self, *, gone: bool = False) -> str:
        """Ends the child with all that it started; returns how it ended. `gone`: its end of file was seen."""
        if gone:
            self._process.join(_GONE_SECONDS)  # or its own exit code would be lost to ours
        if self._process.pid is not None:
            for kill in (os.killpg, os.kill):  # the second for one that has not become a group's leader yet
                with contextlib.suppress(ProcessLookupError):
                    kill(self._process.pid, signal.SIGKILL)
        self._process.join(_JOIN_SECONDS)
        self.socket.close()
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exited with code {code}"
