"""The same 40 digits trials by tuner and by plain Optuna with a DataLoader, whole commands, side by side in one run.

    python benchmarks/end_to_end.py                # 40 trials, 3 rounds
    python benchmarks/end_to_end.py --trials 8 --rounds 1

Every contestant trains the same configurations (those that random search proposes for search_spaces/digits_cnn.yaml)
for the same epochs, with nothing pruned. The time of a contestant is that of its whole command, imports and start
included; tuner's also holds the start of its embedded PostgreSQL, fsync on. Their order changes from round to round.
Prints trials per hour as the median over the rounds, their spread, and the ratio to tuner.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tuner.search import SAMPLERS, History
from tuner.settings import read_settings
from tuner.spec.study import StudySpec, read_spec
from tuner.training.data import prepare

HERE = Path(__file__).parent
SPEC = HERE.parent / "search_spaces" / "digits_cnn.yaml"
OVERRIDES = ["search.method=random", "search.pruner=none"]


@dataclass(frozen=True)
class Run:
    seconds: float
    best: float  # validation accuracy
    mean: float  # of all trials: speed bought with worse training would show here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    overrides = [*OVERRIDES, f"budget={{trials: {options.trials}}}"]
    spec = read_spec(SPEC, overrides)
    data = prepare(spec.data, read_settings())
    with tempfile.TemporaryDirectory() as scratch:
        configurations = Path(scratch) / "configurations.json"
        configurations.write_text(json.dumps(propose(spec, options.trials)))
        plain = [sys.executable, str(HERE / "plain_optuna.py"), str(configurations), str(data)]
        contestants: dict[str, Callable[[], Run]] = {
            "tuner": lambda: run_tuner(overrides),
            "plain, 1 process, default threads": lambda: run_plain(plain),
            "plain, 2 processes x 1 thread": lambda: run_plain([*plain, "--processes", "2", "--threads", "1"]),
        }
        runs: dict[str, list[Run]] = {name: [] for name in contestants}
        for turn in range(options.rounds):
            order = list(contestants)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                runs[name].append(contestants[name]())
    report(runs, options.trials, as_json=options.json)


def propose(spec: StudySpec, trials: int) -> list[dict[str, object]]:
    history = History(direction=spec.objective.direction)
    points = [SAMPLERS["random"](spec.space, history, spec.search.seed, number) for number in range(trials)]
    return [spec.space.resolve(point).model_dump(mode="json") for point in points]


def run_tuner(overrides: list[str]) -> Run:
    with tempfile.TemporaryDirectory(prefix="tuner-benchmark-") as home:
        Path(home).chmod(0o711)  # root's PostgreSQL runs as another user
        environment = {**os.environ, "TUNER_HOME": home}
        environment.pop("TUNER_DATABASE_URL", None)
        tuner = [sys.executable, "-m", "tuner"]
        sets = [word for override in overrides for word in ("--set", override)]
        start = time.perf_counter()
        subprocess.run(
            [*tuner, "-q", "launch", str(SPEC), *sets, "--format", "json"],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        listing = subprocess.run(
            [*tuner, "trial", "list", "digits-cnn", "--format", "json"],
            env=environment, check=True, capture_output=True,
        )  # fmt: skip
        subprocess.run([*tuner, "-q", "db", "stop"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return summary(seconds, [trial["value"] for trial in json.loads(listing.stdout)])


def run_plain(command: list[str]) -> Run:
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True)
    return summary(time.perf_counter() - start, json.loads(done.stdout)["values"])


def summary(seconds: float, values: list[float | None]) -> Run:
    known = [value for value in values if value is not None]
    return Run(seconds=seconds, best=max(known), mean=statistics.fmean(known))


def report(runs: dict[str, list[Run]], trials: int, *, as_json: bool) -> None:
    per_hour = {name: [3600 * trials / run.seconds for run in done] for name, done in runs.items()}
    tuner = statistics.median(per_hour["tuner"])
    rows = [
        {
            "contestant": name,
            "trials_per_hour": round(statistics.median(rates)),
            "spread": [round(min(rates)), round(max(rates))],
            "tuner_is_faster_by": round(tuner / statistics.median(rates), 2),
            "best_accuracy": round(max(run.best for run in runs[name]), 4),
            "mean_accuracy": round(statistics.fmean(run.mean for run in runs[name]), 4),
        }
        for name, rates in per_hour.items()
    ]
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    if as_json:
        print(json.dumps({"trials": trials, "rounds": len(runs["tuner"]), "machine": machine, "rows": rows}, indent=2))
        return
    print(f"{trials} trials, {len(runs['tuner'])} rounds; " + ", ".join(f"{k} {v}" for k, v in machine.items()))
    print(f"{'':36}{'trials/hour':>12}{'(min-max)':>16}{'tuner is':>12}{'best':>9}{'mean':>9}")
    for row in rows:
        low, high = row["spread"]
        faster = f"{row['tuner_is_faster_by']:.2f} x"
        print(
            f"{row['contestant']:36}{row['trials_per_hour']:>12}{f'({low}-{high})':>16}{faster:>12}"
            f"{row['best_accuracy']:>9.4f}{row['mean_accuracy']:>9.4f}"
        )


if __name__ == "__main__":
    main()
