"""What can be said of a study before it begins: how large its models get, which cannot be, what trials take.

Measured by a process of its own (`examiner`): it imports torch while whoever asks goes on, and forks for every trial
that it tries, so that each begins with the memory that a worker's children begin with, and one that is killed for
what it takes costs nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from tuner.errors import TunerError
from tuner.spec.config import TrialConfig
from tuner.spec.space import Value
from tuner.spec.stacking import Engine, Group

ModelSize = Literal["smallest", "largest"]

COMMAND = (sys.executable, "-P", "-m", "tuner.training.examiner")


@dataclass(frozen=True, kw_only=True)
class Question:
    study: str
    document: Mapping[str, Any]  # its file, defaults filled in
    data: Path  # the folder of its prepared data
    device: str  # auto, cpu or cuda
    trials: tuple[TrialConfig, ...]  # to be tried out, besides the corners of the space
    groups: tuple[Group, ...]  # by which engines are compared; none where there is nothing to compare


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a few steps of a trial say of all of it; nothing where it cannot be trained."""

    problem: str | None = None  # why it cannot be trained, in one line
    memory_bytes: int | None = None  # of the GPU; else of its process, beyond what all children share
    epoch_seconds: float | None = None  # with its evaluation, while nothing else is trained
    trial_seconds: float | None = None  # if it is not pruned


@dataclass(frozen=True, kw_only=True)
class Corner:
    """A model at an end of the space, with a batch at an end of it."""

    model: ModelSize
    knobs: Mapping[str, Value]  # of the model, those that are searched
    batch_size: int
    parameters: int
    tried: DryRun


@dataclass(frozen=True, kw_only=True)
class Preflight:
    device: str  # cpu or cuda
    corners: tuple[Corner, ...]  # none where no model can be built; fewer than four where some are the same
    fewest_parameters: int | None  # of all models whose knobs are at their ends; None: none can be built
    most_parameters: int | None
    infeasible: tuple[str, ...]  # models that cannot be built and why, one for each reason
    trials: tuple[DryRun, ...]  # as they were asked for
    available_bytes: int | None  # of the memory that trials take
    data_bytes: int | None  # that a part of the data may have to be kept in memory; None: any number
    engine: Engine | None  # that a worker here would choose for the groups; None: there is nothing to compare
    engine_gain: float  # how many times as fast as the single one it trains them
    engine_problem: str | None  # why the engines could not be compared
    bfloat16_gain: float | None  # how many times as fast the largest model's steps are with it; None: not asked for

    @property
    def most_bytes(self) -> int | None:
        """Memory of the largest trial that was tried."""
        tried = (*self.trials, *(corner.tried for corner in self.corners))
        return max((run.memory_bytes for run in tried if run.memory_bytes), default=None)

    @property
    def fit(self) -> int | None:
        """How many trials fit into the memory at once, were all as large as the largest."""
        if self.available_bytes is None or self.most_bytes is None:
            return None
        return self.available_bytes // self.most_bytes


class Examiner:
    """The process that tries trials out; to be started early, since it imports torch for a second or two."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a group of its own, to be ended with all that it forked
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def ask(self, question: Question) -> Preflight:
        """May be asked once. Raises TunerError where there is no such device, or nothing could be found out."""
        answer, said = self._process.communicate(TypeAdapter(Question).dump_json(question))
        if self._process.returncode:
            lines = said.decode(errors="replace").split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), f"exit code {self._process.returncode}")
            raise TunerError(reason.strip())
        return TypeAdapter(Preflight).validate_json(answer)
