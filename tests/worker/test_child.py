"""A child and its mailbox: what trains together, and what waits for its turn."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tuner.spec.stacking import Engine, Group
from tuner.states import Outcome
from tuner.training.progress import Progress, Result, Run, Stop
from tuner.worker import children
from tuner.worker.child import main
from tuner.worker.messages import (
    Begin,
    Finished,
    Inbox,
    Measure,
    Measured,
    Message,
    Ready,
    StopTrial,
    Train,
    encode,
)
from tuner.worker.progress import SharedProgress


class Lingering:
    """Ends its trials, and is told of that before it looks for the last time whether others have arrived."""

    device = "cpu"
    mixes_studies = False

    def __init__(self, device: str, slot: int) -> None:
        self.sessions = 0

    def __call__(self, runs: Sequence[Run], joining: Callable[[], Sequence[Run]], progress: Progress) -> None:
        self.sessions += 1
        while runs:
            for run in runs:
                reason = f"session {self.sessions}"
                run.end(Result(outcome=Outcome.COMPLETE, reason=reason, epochs=0, parameters=0))
            while runs[-1].stop() is Stop.GO_ON:
                time.sleep(0.01)
            runs = joining()

    def measure(self, groups: Sequence[Group], progress: Progress) -> Engine:
        return Engine(name="stacks", members=7)


class LingeringLanes(Lingering):
    mixes_studies = True


class Supervisor:
    """The other end of the socket."""

    def __init__(self, sock: socket.socket, folder: Path) -> None:
        self._socket, self._inbox, self._folder = sock, Inbox(sock), folder
        self._heard: list[Message] = []

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def begin(self, study: int, trial: int) -> None:
        log = str(self._folder / f"{trial}.log")
        train = Train(trial_id=trial, attempt=1, number=0, lane=0, seed=0, config="", folder="", resume=None, log=log)
        self.send(Begin(study_id=study, trials=[train]))

    def let_go(self, trial: int) -> None:
        """Of the last look after this trial."""
        self.send(StopTrial(trial_id=trial, attempt=1, after_epoch=False))

    def hear(self) -> Message:
        while not self._heard:
            self._heard += self._inbox.read()
        return self._heard.pop(0)

    def hear_end(self, trial: int) -> str | None:
        message = self.hear()
        assert isinstance(message, Finished), message
        assert message.trial_id == trial
        return message.reason


@pytest.fixture
def training() -> type[Lingering]:
    return Lingering


@pytest.fixture
def supervisor(tmp_path: Path, training: type[Lingering]) -> Iterator[Supervisor]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    arguments = (theirs, SharedProgress(context), f"{__name__}:{training.__name__}", "cpu", 0)
    process = context.Process(target=main, args=arguments)
    process.start()
    theirs.close()
    supervisor = Supervisor(ours, tmp_path)
    assert supervisor.hear() == Ready(device="cpu")
    yield supervisor
    ours.close()  # which ends it
    process.join(30)


def test_a_frozen_child_that_takes_no_message_is_ended_instead_of_waited_for() -> None:
    child = children.Child(f"{__name__}:Lingering", "cpu", 0, 60.0)
    try:
        child.socket.settimeout(60.0)
        while not list(child.read()):
            pass
        psutil.Process(child._process.pid).suspend()
        child.socket.settimeout(0.2)
        child.send(Measure(study_id=1, configs=["x" * 2**22], trials=[1]))  # more than a socket holds
        with pytest.raises(EOFError):
            list(child.read())
    finally:
        child.kill()


def test_trials_of_the_same_study_join_those_that_train(supervisor: Supervisor) -> None:
    supervisor.begin(study=1, trial=1)
    assert supervisor.hear_end(1) == "session 1"
    supervisor.begin(study=1, trial=2)
    supervisor.let_go(1)
    assert supervisor.hear_end(2) == "session 1"


def test_trials_of_another_study_wait_until_those_before_have_ended(supervisor: Supervisor) -> None:
    """Theirs is other data."""
    supervisor.begin(study=1, trial=1)
    assert supervisor.hear_end(1) == "session 1"
    supervisor.begin(study=2, trial=2)
    supervisor.begin(study=2, trial=3)
    supervisor.let_go(1)
    assert supervisor.hear_end(2) == "session 2"
    supervisor.let_go(2)
    assert supervisor.hear_end(3) == "session 2"


@pytest.mark.parametrize("training", [LingeringLanes])
def test_trials_of_another_study_need_not_wait_where_studies_mix(supervisor: Supervisor) -> None:
    supervisor.begin(study=1, trial=1)
    assert supervisor.hear_end(1) == "session 1"
    supervisor.begin(study=2, trial=2)
    supervisor.let_go(1)
    assert supervisor.hear_end(2) == "session 1"


def test_an_order_to_measure_is_not_lost_where_trials_have_just_ended(supervisor: Supervisor) -> None:
    supervisor.begin(study=1, trial=1)
    assert supervisor.hear_end(1) == "session 1"
    supervisor.send(Measure(study_id=2, configs=[], trials=[]))
    supervisor.begin(study=1, trial=2)
    supervisor.let_go(1)
    assert supervisor.hear() == Measured(study_id=2, engine="stacks", members=7, fault=None)
    assert supervisor.hear_end(2) == "session 2"
