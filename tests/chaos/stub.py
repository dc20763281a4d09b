"""A training that only sleeps, for workers by the dozen: real children, real messages, real checkpoint files.

What it does follows from the environment of its worker (`Behaviour`), its values from the study's seed, the trial's
number and the epoch, so that every curve is known beforehand.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tuner.errors import ArtifactError
from tuner.seeds import derive_seed
from tuner.spec.stacking import Engine, Group
from tuner.states import Outcome
from tuner.training import checkpoint_file
from tuner.training.progress import Epoch, Phase, Progress, Result, Run, Stop

TRAINING = f"{__name__}:Stub"  # as a worker's options name it

STEPS = 4  # of an epoch: so often it looks whether it should stop


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How the stubs of a worker train."""

    epoch_seconds: float = 0.0
    checkpoint_epochs: int = 4  # from one checkpoint to the next
    checkpoint_bytes: int = 0  # besides the little that it needs
    value_names_attempt: bool = False  # values are attempt + 0.5 * what they would be: whose they are shows in the rows
    members: int = 1  # so many trials are trained at once: what it measures
    measure_seconds: float = 0.0  # that takes so long
    measure_deaths: int = 0  # … and kills the process so many times
    fits: int = 1_000  # … and with more than so many, memory does not suffice
    kills: int = -1  # number of a trial that kills its process
    raises: int = -1  # number of a trial that raises an exception

    @property
    def environment(self) -> dict[str, str]:
        return {f"CHAOS_{name.upper()}": str(value) for name, value in asdict(self).items()}

    @staticmethod
    def of(environment: Mapping[str, str]) -> Behaviour:
        given = {name.removeprefix("CHAOS_").lower(): text for name, text in environment.items()}
        kinds = {field.name: type(field.default) for field in fields(Behaviour)}
        parsed = {name: json.loads(given[name].lower()) for name in kinds if name in given}
        return Behaviour(**{name: kinds[name](value) for name, value in parsed.items()})


def value_of(seed: int, number: int, epoch: int) -> float:
    """What an undisturbed trial reports, below 1."""
    return derive_seed(seed, number, "stub", epoch) / 2**32


@dataclass
class Member:
    """A run in training."""

    run: Run
    epoch: int
    saved: int  # epoch of the last checkpoint
    told: Stop = Stop.GO_ON

    @property
    def epochs(self) -> int:
        return self.run.config.training.epochs


class Stub:
    """Trains all its runs at once, epoch by epoch."""

    device = "cpu"
    mixes_studies = False

    def __init__(self, device: str, slot: int) -> None:
        self._behaviour = Behaviour.of(os.environ)

    def __call__(self, runs: Sequence[Run], joining: Callable[[], Sequence[Run]], progress: Progress) -> None:
        members = _going_on([_member(run) for run in runs])
        while members:
            if len(members) > self._behaviour.fits:
                for member in members:
                    member.run.end(_result(Outcome.OUT_OF_MEMORY, member.epoch))
                return
            progress.enter(Phase.TRAIN)
            for _ in range(STEPS):
                time.sleep(self._behaviour.epoch_seconds / STEPS)
                progress.tick()
                for member in members:
                    if member.told is not Stop.NOW:
                        member.told = member.run.stop()
            self._spoil(members)
            for member in members:
                if member.told is not Stop.NOW:
                    progress.enter(Phase.SAVE)
                    self._finish_epoch(member)
            members = _going_on([*members, *(_member(run) for run in joining())])

    def _spoil(self, members: Sequence[Member]) -> None:
        """What a trial does to all that are trained with it."""
        numbers = {member.run.number for member in members}
        if self._behaviour.kills in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._behaviour.raises in numbers:
            raise RuntimeError(f"trial {self._behaviour.raises} is broken")

    def _finish_epoch(self, member: Member) -> None:
        how, run = self._behaviour, member.run
        member.epoch += 1
        value = value_of(run.seed, run.number, member.epoch)
        if how.value_names_attempt:
            value = int(run.folder.name) + value / 2
        checkpoint = None
        last = member.epoch == member.epochs or member.told is Stop.AFTER_EPOCH
        if last or member.epoch - member.saved >= how.checkpoint_epochs:
            checkpoint = run.folder / f"{member.epoch}.ckpt"
            checkpoint_file.write(checkpoint, content(run.number, member.epoch, how.checkpoint_bytes))
            member.saved = member.epoch
        run.report(
            Epoch(epoch=member.epoch, value=value, metrics={"stub": value}, seconds=how.epoch_seconds), checkpoint
        )

    def measure(self, groups: Sequence[Group], progress: Progress) -> Engine:
        time.sleep(self._behaviour.measure_seconds)
        self._perhaps_die()
        members = self._behaviour.members
        return Engine(name="stacks" if members > 1 else "single", members=members)

    def _perhaps_die(self) -> None:
        if self._behaviour.measure_deaths:
            tries = Path(os.environ["TUNER_HOME"]) / "measured"
            with tries.open("a") as file:
                file.write("x")
            if tries.stat().st_size <= self._behaviour.measure_deaths:
                os.kill(os.getpid(), signal.SIGKILL)


def _going_on(members: Sequence[Member]) -> list[Member]:
    """Without those that have come to their end, which is told."""
    going = []
    for member in members:
        if member.epoch == member.epochs:
            member.run.end(_result(Outcome.COMPLETE, member.epoch))
        elif member.told is not Stop.GO_ON:
            member.run.end(_result(None, member.epoch))
        else:
            going.append(member)
    return going


def _result(outcome: Outcome | None, epochs: int) -> Result:
    return Result(outcome=outcome, reason=None, epochs=epochs, parameters=0)


def content(number: int, epoch: int, size: int) -> bytes:
    return json.dumps({"number": number, "epoch": epoch, "padding": "x" * size}).encode()


def _member(run: Run) -> Member:
    """As in the real training, a checkpoint that cannot be read costs its epochs."""
    epoch = 0
    if run.resume is not None:
        try:
            kept = json.loads(bytes(checkpoint_file.read(run.resume)))
            assert kept["number"] == run.number
            epoch = int(kept["epoch"])
        except ArtifactError as error:
            print(f"{error}; training begins anew", flush=True)
    return Member(run=run, epoch=epoch, saved=epoch)
