"""A training that only sleeps, for workers by the dozen: real children, real messages, real checkpoint files.

What it does follows from the environment of its worker (`Behaviour`), its values from the study's seed, the trial's
number and the epoch, so that every curve is known beforehand.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tuner.errors import ArtifactError
from tuner.seeds import derive_seed
from tuner.states import Outcome
from tuner.training import checkpoint_file
from tuner.training.progress import Epoch, Phase, Progress, Result, Stop
from tuner.worker.messages import Train

TRAINING = f"{__name__}:Stub"  # as a worker's options name it

STEPS = 4  # of an epoch: so often it looks whether it should stop


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How the stubs of a worker train."""

    epoch_seconds: float = 0.0
    checkpoint_epochs: int = 4  # from one checkpoint to the next
    checkpoint_bytes: int = 0  # besides the little that it needs
    value_names_attempt: bool = False  # values are attempt + 0.5 * what they would be: whose they are shows in the rows

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


class Stub:
    device = "cpu"

    def __init__(self, device: str, slot: int) -> None:
        self._behaviour = Behaviour.of(os.environ)

    def __call__(
        self,
        trial: Train,
        *,
        stop: Callable[[], Stop],
        report: Callable[[Epoch, Path | None], None],
        progress: Progress,
    ) -> Result:
        how = self._behaviour
        epochs = json.loads(trial.config)["training"]["epochs"]
        epoch = saved = _resumed(trial)
        told = Stop.GO_ON
        while epoch < epochs and told is Stop.GO_ON:
            progress.enter(Phase.TRAIN)
            for _ in range(STEPS):
                time.sleep(how.epoch_seconds / STEPS)
                progress.tick()
                told = stop()
                if told is Stop.NOW:
                    return _result(None, epoch)
            epoch += 1
            value = value_of(trial.seed, trial.number, epoch)
            if how.value_names_attempt:
                value = trial.attempt + value / 2
            checkpoint = None
            if epoch == epochs or told is Stop.AFTER_EPOCH or epoch - saved >= how.checkpoint_epochs:
                progress.enter(Phase.SAVE)
                checkpoint = Path(trial.folder) / f"{epoch}.ckpt"
                checkpoint_file.write(checkpoint, content(trial.number, epoch, how.checkpoint_bytes))
                saved = epoch
            report(Epoch(epoch=epoch, value=value, metrics={"stub": value}, seconds=how.epoch_seconds), checkpoint)
        return _result(Outcome.COMPLETE if epoch == epochs else None, epoch)


def content(number: int, epoch: int, size: int) -> bytes:
    return json.dumps({"number": number, "epoch": epoch, "padding": "x" * size}).encode()


def _resumed(trial: Train) -> int:
    """The epoch to go on from; as in the real training, a checkpoint that cannot be read costs its epochs."""
    if trial.resume is None:
        return 0
    try:
        kept = json.loads(bytes(checkpoint_file.read(Path(trial.resume))))
    except ArtifactError as error:
        print(f"{error}; training begins anew", flush=True)
        return 0
    assert kept["number"] == trial.number
    return int(kept["epoch"])


def _result(outcome: Outcome | None, epochs: int) -> Result:
    return Result(outcome=outcome, reason=None, epochs=epochs, parameters=0)
