"""A child process: trains trials, one after the other or several at once. It knows no database, holds no credentials.

How it trains is not known here, and no torch: that is a `Training`, named by the worker's options.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

from tuner.errors import ArtifactError, DataError, TunerError
from tuner.spec.config import TrialConfig
from tuner.spec.stacking import Engine, Group
from tuner.training.progress import Phase, Progress, Run
from tuner.worker.mailbox import Mailbox
from tuner.worker.messages import Begin, Measure, Measured, Ready, Unable
from tuner.worker.progress import SharedProgress
from tuner.worker.session import Session, one_line


class Training(Protocol):
    """Trains trials. Made once a child, from the worker's device and the child's slot; that raises TunerError where
    there is no such device.
    """

    @property
    def device(self) -> str:
        """ "cpu", "cuda:1"."""

    @property
    def mixes_studies(self) -> bool:
        """Whether trials of several studies may train at the same time."""

    def __call__(self, runs: Sequence[Run], joining: Callable[[], Sequence[Run]], progress: Progress) -> None:
        """Trains the runs, and those that `joining` gives meanwhile (asked between two epochs), until all have ended.

        Each goes on from its checkpoint, if it has one, to its last epoch or until told to stop, and then `end` is
        called. Each epoch is reported, with its checkpoint (a file in the run's folder) where there is one. `progress`
        moves at every step. Raises ArtifactError or DataError where this machine is at fault, and not the trials;
        whatever it raises concerns all runs that have not ended.
        """

    def measure(self, groups: Sequence[Group], progress: Progress) -> Engine:
        """Which engine trains such trials fastest here, and with how many members: 0 where no stack can be built.

        `progress` moves as it does in training. Raises ArtifactError or DataError where this machine is at fault; after
        any other error the study is trained singly.
        """


def main(sock: socket.socket, progress: SharedProgress, training: str, device: str, slot: int) -> None:
    """The life of a child; ends when its supervisor is gone. `training` names a Training: "package.module:Name"."""
    os.setsid()  # so that it can be killed with all that users' code may start
    with contextlib.suppress(OSError):  # where memory runs out, the system is to end this one and not the supervisor
        Path("/proc/self/oom_score_adj").write_text("500")
    mailbox = Mailbox(sock)
    try:
        train: Training = resolve_name(training)(device, slot)
    except TunerError as error:
        mailbox.send(Unable(trial_id=None, attempt=None, error=type(error).__name__, reason=str(error)))
        return
    progress.enter(Phase.IDLE)
    mailbox.send(Ready(device=train.device))
    while True:
        match mailbox.next():
            case Begin() as order:
                session = Session(mailbox, progress, train.device, mixes_studies=train.mixes_studies)
                session.run(order, train)
            case Measure() as measure:
                answer = _measured(measure, train, progress)
                progress.enter(Phase.IDLE)
                mailbox.send(answer)


def _measured(order: Measure, train: Training, progress: Progress) -> Measured | Unable:
    engine, fault = Engine(name="single"), None
    try:
        groups = [
            Group(config=TrialConfig.model_validate_json(config), trials=trials)
            for config, trials in zip(order.configs, order.trials, strict=True)
        ]
        engine = train.measure(groups, progress)
    except (ArtifactError, DataError) as error:
        return Unable(trial_id=None, attempt=None, error=type(error).__name__, reason=str(error))
    except Exception as error:
        fault = one_line(error)
    return Measured(study_id=order.study_id, engine=engine.name, members=engine.members, fault=fault)
