"""What a supervisor waits for: its children's sockets, the storage thread's answers, signals and the clock."""

from __future__ import annotations

import contextlib
import queue
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from tuner.worker.children import Child
from tuner.worker.events import ChildLost, ChildSays, Event, StorageAnswer, Terminate, Tick
from tuner.worker.timing import TICK_SECONDS

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class EventLoop:
    def __init__(self) -> None:
        self._answers: queue.SimpleQueue[StorageAnswer | Terminate] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)

    def answer(self, event: StorageAnswer | Terminate) -> None:
        """Hands in an event from another thread or a signal handler."""
        self._answers.put(event)
        with contextlib.suppress(BlockingIOError):  # it is awake already
            self._wake.send(b"\0")

    def catch_signals(self) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            self.answer(Terminate())

        for number in _SIGNALS:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, handle)

    def events(self, children: Callable[[], Sequence[tuple[int, Child]]]) -> Iterator[Event]:
        """Waits and yields, without end; children may be replaced between two events."""
        while True:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                for trainer, child in children():
                    selector.register(child.socket, selectors.EVENT_READ, (trainer, child))
                ready = selector.select(TICK_SECONDS)
            for key, _ in ready:
                if key.data is None:
                    self._woken.recv(4096)
                    while not self._answers.empty():
                        yield self._answers.get()
                elif key.data in children():  # not replaced by what was handled just now
                    yield from _listen(*key.data)
            yield Tick()


def _listen(trainer: int, child: Child) -> Iterator[Event]:
    try:
        for message in child.read():
            yield ChildSays(trainer=trainer, message=message)
    except EOFError:
        yield ChildLost(trainer=trainer, reason=child.kill(gone=True))
    except ValueError as error:
        child.kill()
        yield ChildLost(trainer=trainer, reason=f"sent what is no message ({error})")
