"""A child's side of the socket to its supervisor."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import deque

from tuner.training.progress import Stop
from tuner.worker.messages import Begin, Inbox, Measure, Message, StopTrial, Train, encode


class Mailbox:
    """A thread listens, so that a stop is seen in the middle of an epoch."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._orders: deque[Begin | Measure] = deque()
        self._waiting = threading.Semaphore(0)  # one for each order
        self._stops: dict[tuple[int, int], Stop] = {}  # trial, attempt
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        inbox = Inbox(self._socket)
        try:
            while True:
                for message in inbox.read():
                    match message:
                        case Begin() | Measure():
                            self._orders.append(message)
                            self._waiting.release()
                        case StopTrial(trial_id=trial, attempt=attempt, after_epoch=after_epoch):
                            self._stops[trial, attempt] = Stop.AFTER_EPOCH if after_epoch else Stop.NOW
        finally:  # whatever ends this thread: a child without its supervisor must not go on
            os.killpg(0, signal.SIGKILL)

    def next(self) -> Begin | Measure:
        """Waits for it."""
        self._waiting.acquire()
        return self._orders.popleft()

    def arrived(self, study_id: int | None) -> list[Train]:
        """Trials to train beside those that train already: of this study, or of any; does not wait.

        Whatever else is next, another study's trials on other data or an engine to be measured, is left to `next`.
        """
        trials: list[Train] = []
        while self._orders and isinstance(order := self._orders[0], Begin) and study_id in (None, order.study_id):
            self.next()
            trials += order.trials
        return trials

    def stop(self, trial: Train) -> Stop:
        return self._stops.get((trial.trial_id, trial.attempt), Stop.GO_ON)

    def forget(self, trial: Train) -> None:
        self._stops.pop((trial.trial_id, trial.attempt), None)

    def send(self, message: Message) -> None:
        try:
            self._socket.sendall(encode(message))
        except OSError:
            os.killpg(0, signal.SIGKILL)
