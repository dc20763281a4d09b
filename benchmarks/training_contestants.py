"""The contestants of benchmarks/training.py: ways to train the same configurations, each a whole command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs
from jobs import Job
from launching import fresh_home
from processes import ended_cpu_seconds, output, start

HERE = Path(__file__).parent
RAY = "ray[tune]>=2.40"


@dataclass(frozen=True, kw_only=True)
class Run:
    seconds: float  # of the whole command
    cpu_seconds: float  # of all its processes
    values: Sequence[float | None]  # by the trials' numbers; None: its loss became infinite
    first_epoch: float | None = None  # seconds from the start of the command until an epoch was reported


@dataclass(frozen=True, kw_only=True)
class Contestant:
    label: str
    run: Callable[[Job], Run]
    precision: str = "float32"
    only_on: Sequence[str] | None = None  # workloads, unless the contestant is asked for; None: on all


class RayMissing(Exception):
    """Ray cannot be installed here."""


def contestants(device: str, processes: int, loader_workers: int) -> dict[str, Contestant]:
    """By their names on the command line."""
    training = ["--device", device, "--loader-workers", str(loader_workers)]
    several = ["--processes", str(processes)]
    plain = [sys.executable, str(HERE / "plain.py"), *training]
    return {
        "plain": Contestant(label="plain, 1 process", run=partial(_script, plain)),
        "careful": Contestant(
            label=f"plain, {processes} processes x 1 thread", run=partial(_script, [*plain, *several, "--threads", "1"])
        ),
        "untuned": Contestant(
            label="plain, 2 processes, default threads",
            run=partial(_script, [*plain, "--processes", "2"]),
            only_on=["digits"],
        ),
        "ray": Contestant(label=f"ray tune, {processes} trials at a time", run=partial(_ray, [*training, *several])),
        "tuner": Contestant(label="tuner", run=partial(_tuner, device, [])),
        "bfloat16": Contestant(
            label="tuner, bfloat16",
            run=partial(_tuner, device, ["training.precision=bfloat16"]),
            precision="bfloat16",
            only_on=["fashion_mnist", "etth1"],
        ),
    }


def _tuner(device: str, sets: Sequence[str], job: Job) -> Run:
    before = ended_cpu_seconds()
    with fresh_home() as home:
        seconds = home.launch(job.file, [*job.overrides, *sets], name=job.spec.name, options=["--device", device])
        trials = home.trials(job.spec.name)
    values = [trial.value if trial.outcome == "complete" else None for trial in trials]
    return Run(seconds=seconds, cpu_seconds=ended_cpu_seconds() - before, values=values)


def _script(command: Sequence[str], job: Job) -> Run:
    """A Python script that takes a job, and whose last line is its result."""
    python, script, *options = command
    before = ended_cpu_seconds()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job.plain, file)
        file.flush()
        began, began_at = time.perf_counter(), time.time()
        said = output(start([python, script, file.name, *options], {**os.environ, "PYTHONPATH": str(HERE)}))
        seconds = time.perf_counter() - began
    result = json.loads(said.splitlines()[-1])  # Ray prints as well
    return Run(
        seconds=seconds,
        cpu_seconds=ended_cpu_seconds() - before + result.get("uncounted_cpu_seconds", 0.0),
        values=result["values"],
        first_epoch=result["first_epoch_at"] - began_at if result["first_epoch_at"] else None,
    )


def _ray(options: Sequence[str], job: Job) -> Run:
    return _script([str(ray_python()), str(HERE / "ray_tune.py"), *options], job)


def ray_python() -> Path:
    """The interpreter of an environment with Ray beside this one's torch and Optuna; made in the user's cache.

    Raises RayMissing.
    """
    version = sysconfig.get_python_version()
    folder = platformdirs.user_cache_path("tuner-benchmarks") / f"ray-python{version}"
    python = folder / "bin" / "python"
    if not _has_ray(python):  # or no more: this environment may have lost a package that was found in it
        print(f"making an environment for Ray in {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        # Packages of this environment are seen behind its own: the same torch, of which no second copy is needed.
        site = folder / "lib" / f"python{version}" / "site-packages"
        (site / "this-environment.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        install = [str(python), "-m", "pip", "install", "--quiet", RAY]
        pip = subprocess.run(install, capture_output=True, text=True, check=False)
        if pip.returncode:
            raise RayMissing(f"pip cannot install {RAY}: {pip.stderr.strip().splitlines()[-1]}")
    return python


def _has_ray(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([python, "-c", "import ray.tune"], capture_output=True, check=False).returncode == 0
