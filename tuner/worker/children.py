"""Child processes as their supervisor holds them: started from a warm fork server, watched, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running

from tuner.errors import WorkersFailed
from tuner.training.progress import Phase
from tuner.worker import child
from tuner.worker.messages import Begin, Inbox, Measure, Message, encode
from tuner.worker.progress import SharedProgress
from tuner.worker.timing import PREPARE_SECONDS, START_SECONDS

TRAINING = "tuner.worker.torch_training:TorchTraining"  # a name: a supervisor imports no torch

_CONTEXT = get_context("forkserver")
_JOIN_SECONDS = 5.0
_SEND_SECONDS = 5.0  # a child's listener takes what it is sent at once
_GONE_SECONDS = 0.5


def prepare_fork_server(training: str) -> None:
    """Starts the fork server, which imports torch while its caller goes on; the first child waits for that.

    To be called once no secret stands in the environment any more: children inherit it.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # or the fork server would import what lies in the working directory
    modules = ["tuner.worker.preload", training.partition(":")[0], "tuner.worker.preloaded"]
    _CONTEXT.set_forkserver_preload(modules)
    ensure_running()


class Child:
    """One child process and the socket to it."""

    def __init__(self, training: str, device: str, slot: int, hang_seconds: float) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(_SEND_SECONDS)
        self._inbox = Inbox(self.socket)
        self._progress = SharedProgress(_CONTEXT)
        self._hang_seconds = hang_seconds
        self._seen, self._seen_at = self._progress.read(), time.monotonic()
        arguments = (theirs, self._progress, training, device, slot)
        self._process = _CONTEXT.Process(target=child.main, args=arguments, daemon=True)
        try:
            self._process.start()
        except (OSError, EOFError) as error:
            raise WorkersFailed(f"cannot start a training process: {error or 'the fork server died'}") from error
        finally:
            theirs.close()

    def begin(self, work: Begin | Measure) -> None:
        """Gives it work where it had none; from now on it must show signs of life."""
        self._progress.enter(Phase.START if isinstance(work, Begin) else Phase.PREPARE)
        self.spare()
        self.send(work)

    @property
    def steps(self) -> int:
        """Made so far, of whatever it trains; what else it does counts little."""
        return self._progress.read()[0]

    def spare(self) -> None:
        """Counts its silence from now: it was the supervisor that stood still."""
        self._seen_at = time.monotonic()

    def send(self, message: Message) -> None:
        # One that is gone is noticed by its end of file.
        try:
            self.socket.sendall(encode(message))
        except TimeoutError:  # it is frozen, and its supervisor must not be
            self._end()
        except OSError:
            pass

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
        """Ends the child with all that it started; says how it ended. `gone`: its end of file was seen."""
        if gone:
            self._process.join(_GONE_SECONDS)  # or its own exit code would be lost to ours
        self._end()
        self._process.join(_JOIN_SECONDS)
        self.socket.close()
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal_name(-code)}"
        return f"exited with code {code}"

    def _end(self) -> None:
        if self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # one that has not become a group's leader yet


def signal_name(number: int) -> str:
    """SIGKILL; real-time signals have no names."""
    return next((known.name for known in signal.Signals if known == number), f"signal {number}")
