"""The same trials by tuner, by plain Optuna with a DataLoader, and by Ray Tune: whole commands, side by side.

    python benchmarks/training.py                                    # three to four hours on 2 quiet cores
    python benchmarks/training.py --workloads digits digits_fixed    # half an hour
    python benchmarks/training.py --workloads etth1 --trials 20      # half the time, and more noise
    python benchmarks/training.py --quick                            # ten minutes, to see that it works
    python benchmarks/training.py --device cuda --workloads digits fashion_mnist --trials 200

The workloads are the study files in benchmarks/workloads/. Every contestant trains the same configurations, those that
random search proposes, for the same epochs on the same prepared data, and keeps the curve of every trial; nothing is
pruned. Their order changes from round to round.

    plain      Optuna, TensorDataset, DataLoader, torch's default threads, in one process
    careful    the same at its best: a process for each core, one thread in each, trials shared by a queue
    untuned    the same in two processes with torch's default threads, as most people start them; by default on digits
    ray        Ray Tune with its Optuna search, as many trials at a time as careful has processes, one thread in each;
               in an environment of its own with the same torch and Optuna, made once
    tuner      `tuner launch` whole: PostgreSQL is made and started (fsync on), workers too
    bfloat16   the same with training.precision=bfloat16; by default on fashion_mnist and etth1

Times are those of whole commands, imports and start included. Arithmetic is the share of the machine's peak (of large
matrix products by all cores, in the contestant's precision) that the models' products and convolutions come to. Scores
are means over the configurations with their standard error; they agree with the first contestant's where the mean
difference of the same configurations is within three of its standard errors. The start-up of tuner is measured apart,
on the first workload: seconds from `tuner launch` to the first epoch in the database, without and with one that runs.

Fashion-MNIST and ETTh1 are looked for in the folder that TUNER_DATA names, then downloaded; a workload whose data
cannot be had is left out.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
import torch
from arithmetic import peak
from jobs import FILES, Job, make_job
from launching import fresh_home
from processes import adopt_orphans
from side_by_side import cores, in_turn, listed, machine
from training_contestants import Contestant, RayMissing, Run, contestants, ray_python
from training_report import show, summary

from tuner.errors import DataError

GPU_PROCESSES = 4  # on one GPU more only take turns
STARTUP_TRIALS = 8  # enough for every slot and for a stack
QUICK_TRIALS = 4


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no server behind
    options = arguments()
    counted = adopt_orphans()
    processes = options.processes or (min(cores(), GPU_PROCESSES) if options.device == "cuda" else cores())
    everybody = contestants(options.device, processes, options.loader_workers)
    names = with_ray_if_possible(options.contestants or list(everybody))
    jobs = dict(ready_jobs(options))
    peaks = {name: peak(getattr(torch, name), options.device) for name in ("float32", "bfloat16")}
    head = described(options.device, peaks)
    if not options.json:
        print(listed(head))
        print(f"n = {options.rounds} interleaved rounds; medians (min-max); CPU seconds {counted}", flush=True)

    results: dict[str, Any] = {}
    for workload, job in jobs.items():
        entrants = {name: everybody[name] for name in names if options.contestants or on(everybody[name], workload)}
        runs: dict[str, list[Run]] = {name: [] for name in entrants}
        for name in in_turn(list(entrants), options.rounds, workload):
            runs[name].append(entrants[name].run(job))
        rows = summary(runs, job, entrants, peaks)
        startup = startups(job, options) if "tuner" in entrants and not results else {}
        raw = {name: [asdict(run) for run in done] for name, done in runs.items()}
        work = {"trials": len(job.configs), "epochs": job.spec.epochs}
        results[workload] = {**work, "rows": rows, "startup": startup, "runs": raw}
        if not options.json:
            show(job, rows, entrants, startup)
    if options.json:
        head["CPU seconds"] = counted
        print(json.dumps({"machine": head, "rounds": options.rounds, "workloads": results}, indent=2))


def described(device: str, peaks: Mapping[str, float]) -> dict[str, Any]:
    return {
        **machine(),
        "device": torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "optuna": optuna.__version__,
        **{f"peak {name}": f"{flops / 1e9:,.0f} GFLOP/s" for name, flops in peaks.items()},
    }


def arguments() -> argparse.Namespace:
    names = list(contestants("cpu", processes=1, loader_workers=0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=FILES, default=list(FILES), metavar="NAME", help=words(FILES))
    parser.add_argument("--contestants", nargs="+", choices=names, metavar="NAME", help=words(names))
    parser.add_argument("--trials", type=int, help="of each workload (default: the 40 of the files)")
    parser.add_argument("--rounds", type=int, default=3, help="of every contestant, interleaved (default: %(default)s)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--processes", type=int, help="of careful and ray (default: one a core; 4 on a GPU)")
    parser.add_argument(
        "--loader-workers",
        type=int,
        default=0,
        help="of each DataLoader, which plain, careful, untuned and ray have (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="a short form, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.trials = 1, options.trials or QUICK_TRIALS
    return options


def words(names: Iterable[str]) -> str:
    return f"any of {', '.join(names)} (default: all)"


def ready_jobs(options: argparse.Namespace) -> Iterator[tuple[str, Job]]:
    """Those whose data is there, prepared: that is nobody's time."""
    for workload in options.workloads:
        overrides = [f"budget.trials={options.trials}"] if options.trials else []
        if options.quick:
            overrides.append("training.epochs=1")
        try:
            yield workload, make_job(FILES[workload], overrides)
        except DataError as error:
            note(f"{workload} is left out: {error}")


def with_ray_if_possible(names: Sequence[str]) -> Sequence[str]:
    if "ray" in names:
        try:
            ray_python()
        except RayMissing as error:
            note(f"ray is left out: {error}")
            return [name for name in names if name != "ray"]
    return names


def on(contestant: Contestant, workload: str) -> bool:
    return contestant.only_on is None or workload in contestant.only_on


def startups(job: Job, options: argparse.Namespace) -> dict[str, list[float]]:
    sets = [*job.overrides, f"budget.trials={min(STARTUP_TRIALS, len(job.configs))}"]
    measured: dict[str, list[float]] = {"no database yet": [], "a running one": []}
    for _ in range(options.rounds):
        with fresh_home() as home:
            for study, seconds in zip(("first", "second"), measured.values(), strict=True):
                seconds.append(home.first_epoch(job.file, sets, name=study, options=["--device", options.device]))
    return measured


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
