"""The training of benchmarks/plain.py by Ray Tune with its Optuna search; needs Ray, and nothing of tuner.

    python benchmarks/ray_tune.py job.json --processes 2

As many trials at a time as processes, one thread each (Ray's own default for a trial of one CPU); actors are reused,
so that torch is imported once a process. Prints JSON as plain.py does, with the CPU time of the workers: raylet, their
parent, ignores their ends, so that the system adds it to nobody's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from plain import Data, Diverged, read_space, train
from ray import tune
from ray.tune.search.optuna import OptunaSearch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--loader-workers", type=int, default=0, help="of each DataLoader")
    options = parser.parse_args()
    job = json.loads(options.job.read_text())
    maximize = job["direction"] == "maximize"
    choose = max if maximize else min

    def trainable(config: dict[str, Any], data: Data) -> None:
        state: dict[str, Any] = {}

        def told(**metrics: Any) -> None:
            tune.report({**state, **metrics, "process": os.getpid(), "cpu_seconds": time.process_time()})

        def report(_epoch: int, value: float) -> None:
            state["best"] = choose(state.get("best", value), value)
            state.setdefault("first_epoch_at", time.time())
            told(value=value, diverged=False)

        try:
            number = job["points"].index(config)
            knobs = {**job["knobs"], **config}
            train(knobs, data, job["metric"], number, report, options.device, options.loader_workers)
        except Diverged:
            told(value=math.nan, best=0.0 if maximize else 1e9, diverged=True)

    gpus = 1 if options.device == "cuda" else 0
    with tempfile.TemporaryDirectory() as scratch:
        ray.init(num_cpus=options.processes, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
        search = OptunaSearch(
            read_space(job), metric="best", mode="max" if maximize else "min", points_to_evaluate=job["points"]
        )
        results = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(trainable, data=Data(Path(job["data"]))),
                {"cpu": 1, "gpu": gpus / options.processes},
            ),
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=len(job["points"]),
                max_concurrent_trials=options.processes,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
        ray.shutdown()
    values: list[float | None] = [None] * len(job["points"])
    for result in results:
        if result.error:
            raise SystemExit(f"a trial failed: {result.error}")
        if not result.metrics["diverged"]:
            values[job["points"].index(result.config)] = result.metrics["best"]
    workers: dict[int, float] = {}  # process -> its CPU seconds, by the last trial that it trained
    for result in results:
        process, seconds = result.metrics["process"], result.metrics["cpu_seconds"]
        workers[process] = max(workers.get(process, 0.0), seconds)
    first = min(result.metrics.get("first_epoch_at", math.inf) for result in results)
    print(json.dumps({"values": values, "first_epoch_at": first, "uncounted_cpu_seconds": sum(workers.values())}))


if __name__ == "__main__":
    main()
