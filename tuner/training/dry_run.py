"""A trial tried out: a few of its steps, and what they say of all of it."""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tuner.spec.config import TrialConfig
from tuner.training import checkpoint
from tuner.training.course import Diverged, Member
from tuner.training.device import own_stream
from tuner.training.evaluation import batch_size
from tuner.training.machine import peak_memory
from tuner.training.preflight import DryRun
from tuner.training.state import State
from tuner.training.turns import Turns

TIMED_STEPS = 50  # of a pass at most: fast ones should come to where further data is fetched, beside that in use
PASS_SECONDS = 0.4  # after which no further step of a pass is made, however few there were
TURNAROUND_SECONDS = 0.015  # measured: to claim a trial, keep its checkpoint and tell its end, whatever it trains


def dry_run(config: TrialConfig, data_folder: Path, device: torch.device) -> DryRun:
    """Does all that a trial does, with few steps: two passes, of which only the second is timed.

    The memory is what this process has taken since it was forked: call it once in a fork. Raises InfeasibleModel,
    DataError, and what torch raises where memory does not suffice.
    """
    with own_stream(device):
        return _dry_run(config, data_folder, device)


def _dry_run(config: TrialConfig, data_folder: Path, device: torch.device) -> DryRun:
    began = time.monotonic()
    state = State(Member(config=config, seed=0, number=0), data_folder, device)
    setup = time.monotonic() - began
    _seconds_of_step(state.train(), device, steps=2)  # the first steps allocate, and choose their algorithms
    batch = _seconds_of_step(state.evaluate(), device, steps=10)
    course = state.course
    course.finish_epoch({config.objective.metric: 0.0}, 0.0, lambda: state.weights(course))  # held from now on
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(state.checkpoint(course), Path(folder) / "checkpoint")
    step = _seconds_of_step(state.train(), device)
    steps = math.ceil(len(state.train_part) / config.training.batch_size)
    batches = math.ceil(len(state.validation_part) / batch_size(device))
    epoch = steps * step + batches * batch
    return DryRun(
        memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory(),
        epoch_seconds=epoch,
        trial_seconds=TURNAROUND_SECONDS + setup + config.training.epochs * epoch,
    )


def bfloat16_gain(config: TrialConfig, data_folder: Path, device: torch.device) -> float:
    """How many times as fast a trial's steps are with `training.precision: bfloat16` as with float32.

    The two take turns and the fastest step of each counts, so that whatever else the machine does matters little.
    """
    with own_stream(device):
        states = []
        for precision in ("float32", "bfloat16"):
            training = config.training.model_copy(update={"precision": precision})
            member = Member(config=config.model_copy(update={"training": training}), seed=0, number=0)
            states.append(State(member, data_folder, device))
        turns = [[_seconds_of_step(state.train(), device, steps=10, of=min) for state in states] for _ in range(5)]
    return min(float32 for float32, _ in turns) / min(bfloat16 for _, bfloat16 in turns)


def _seconds_of_step(
    a_pass: Turns[object],
    device: torch.device,
    *,
    steps: int = TIMED_STEPS,
    of: Callable[[list[float]], float] = statistics.median,
) -> float:
    """Of a pass, which is broken off after so many steps or after PASS_SECONDS, whichever is first.

    On a CPU it is the processor's time, one thread's: whatever else the machine does now will not go on for ever.
    """
    clock = time.process_time if device.type == "cpu" else time.monotonic
    end = time.monotonic() + PASS_SECONDS
    times = [clock()]
    with contextlib.suppress(Diverged), contextlib.closing(a_pass):
        for _ in itertools.islice(a_pass, steps):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(clock())
            if time.monotonic() > end:
                break
    seconds = [after - before for before, after in itertools.pairwise(times)]
    return of(seconds[1:] or seconds)  # the first one fetched the data of many
