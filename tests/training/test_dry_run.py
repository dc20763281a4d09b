"""A trial tried out, beside the same trial trained to its end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.spec.config import TrialConfig
from tuner.training.preflight import DryRun

# Both in a fork of a process like a worker's fork server: memory is what the fork adds.
PROGRAM = """
import os, sys
from tuner.training.warmup import warm_up
warm_up()
import json, tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from tuner.spec.config import TrialConfig
from tuner.training.dry_run import dry_run
from tuner.training.loop import train
from tuner.training.machine import peak_memory
from tuner.training.progress import NoProgress, Stop
from tuner.training.randomness import CPU

config, data = TrialConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2])

class Watch(NoProgress):
    peak = 0

    def tick(self):
        self.peak = max(self.peak, peak_memory())

def tried():
    return asdict(dry_run(config, data, CPU))

def trained():
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        run = SimpleNamespace(
            config=config, seed=0, number=0, folder=Path(folder), resume=None, stop=lambda: Stop.GO_ON,
            report=lambda epoch, checkpoint: None, end=lambda result: None,
        )
        train([run], data, device=CPU, joining=list, progress=watch)
    return max(watch.peak, peak_memory())  # the last checkpoint is written behind the last step

for run in (tried, trained):
    if os.fork() == 0:
        print(json.dumps(run()), flush=True)
        os._exit(0)
    os.wait()
"""

Try = Callable[[TrialConfig], tuple[DryRun, int]]


@pytest.fixture
def tried(images: Path) -> Try:
    """A dry run of a trial, and the memory that the whole trial takes."""

    def run(config: TrialConfig) -> tuple[DryRun, int]:
        command = [sys.executable, "-c", PROGRAM, config.model_dump_json(), str(images)]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = process.stdout.splitlines()
        return DryRun(**json.loads(first)), int(second)

    return run


@pytest.mark.parametrize(
    ("model", "batch_size"),
    [
        ({"family": "cnn", "channels": 64, "dropout": 0.2}, 100),
        ({"family": "mlp", "units": 1500, "layers": 3}, 16),
        ({"family": "rnn", "units": 300}, 100),
    ],
    ids=["activations", "parameters", "steps"],
)
def test_memory_is_that_of_the_whole_trial(
    tried: Try, trial_config: Any, model: dict[str, Any], batch_size: int
) -> None:
    run, memory = tried(trial_config(model, batch_size=batch_size))
    assert run.memory_bytes == pytest.approx(memory, rel=0.2)


def test_time_and_memory_follow_the_model(tried: Try, trial_config: Any) -> None:
    small, _ = tried(trial_config({"family": "cnn", "channels": 4}, epochs=1))
    large, _ = tried(trial_config({"family": "cnn", "channels": 64, "kernel": 5}, epochs=3))
    assert small.epoch_seconds and large.epoch_seconds and small.trial_seconds and large.trial_seconds  # noqa: PT018
    assert small.epoch_seconds < large.epoch_seconds
    assert small.trial_seconds > small.epoch_seconds
    assert large.trial_seconds > 3 * large.epoch_seconds
    assert (small.memory_bytes or 0) < (large.memory_bytes or 0)
