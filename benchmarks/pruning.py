"""Whether pruning pays in wall time: how soon each pruner's study has what the unpruned one has at its end.

    python benchmarks/pruning.py                                   # 3 seeds, 40 minutes on 2 quiet cores
    python benchmarks/pruning.py --workloads digits --seeds 5      # a quarter of an hour
    python benchmarks/pruning.py --quick                           # two minutes, to see that it works

For each seed `tuner launch` runs the same study with each pruner, whole, with an embedded PostgreSQL of its own: the
same budget of trials and, since random search proposes them, the same configurations (by --method tpe only the first
ten are the same). The order changes from seed to seed. The target is the best validation accuracy that the unpruned
study of the same seed has at its end, less a tolerance. A trial counts from the moment at which it is complete, in
seconds since the command was started; a pruned one never does.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs import FILES
from launching import fresh_home
from side_by_side import in_turn, listed, machine, show_table, spread

from tuner.settings import read_settings
from tuner.spec.study import read_spec
from tuner.states import TrialState
from tuner.storage.trials import TrialRecord
from tuner.training.data import prepare

PRUNERS = ("none", "median", "asha", "hyperband")


@dataclass(frozen=True, kw_only=True)
class Workload:
    sets: Sequence[str]  # a pruner needs several epochs
    tolerance: float  # of accuracy


WORKLOADS = {
    "digits": Workload(sets=["training.epochs=27"], tolerance=0.004),  # an image of 270
    "fashion_mnist": Workload(
        sets=["training.epochs=9", "data.split.validation=0.7", "model.channels=16", "budget.trials=16"],
        tolerance=0.002,
    ),
}
QUICK = ("training.epochs=2", "budget.trials=4")


@dataclass(frozen=True, kw_only=True)
class Study:
    seconds: float  # of the whole command
    trials: int
    pruned: int
    epochs: int  # trained, in all trials
    reached: Sequence[tuple[float, float]]  # seconds since the command was started, best accuracy from then on

    @property
    def best(self) -> float:
        return self.reached[-1][1] if self.reached else math.nan  # none was complete

    def seconds_to(self, target: float) -> float | None:
        return next((seconds for seconds, best in self.reached if best >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="from 0 on")
    parser.add_argument("--method", default="random", choices=["random", "tpe"])
    parser.add_argument("--tolerance", type=float, help="default: " + ", ".join(tolerances()))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="a short form, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    options = parser.parse_args()
    if options.quick:
        options.seeds = 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no server behind
    head = machine()
    if not options.json:
        print(listed(head))
        print(f"n = {options.seeds} seeds, interleaved; medians (min-max); {options.method} search")
    results = {}
    for workload in options.workloads:
        sets = [*WORKLOADS[workload].sets, f"search.method={options.method}", *(QUICK if options.quick else ())]
        tolerance = WORKLOADS[workload].tolerance if options.tolerance is None else options.tolerance
        prepare(read_spec(FILES[workload], sets).data, read_settings())
        studies: dict[str, list[Study]] = {pruner: [] for pruner in PRUNERS}
        for pruner in in_turn(PRUNERS, options.seeds, workload):
            seed = len(studies[pruner])
            own = [*sets, f"search.pruner={pruner}", f"search.seed={seed}"]
            studies[pruner].append(searched(workload, own, options.device))
        rows = {pruner: compared(done, studies["none"], tolerance) for pruner, done in studies.items()}
        results[workload] = {"tolerance": tolerance, "sets": sets, "pruners": rows}
        if not options.json:
            show(workload, studies, rows, tolerance)
    if options.json:
        print(json.dumps({"machine": head, "seeds": options.seeds, "workloads": results}, indent=2))


def tolerances() -> Iterator[str]:
    return (f"{workload.tolerance} for {name}" for name, workload in WORKLOADS.items())


def searched(workload: str, sets: Sequence[str], device: str) -> Study:
    with fresh_home() as home:
        began = time.time()
        seconds = home.launch(FILES[workload], sets, name=workload, options=["--device", device])
        trials = home.trials(workload)
    return Study(
        seconds=seconds,
        trials=len(trials),
        pruned=sum(trial.state is TrialState.PRUNED for trial in trials),
        epochs=sum(trial.epochs for trial in trials),
        reached=list(improvements(trials, began)),
    )


def improvements(trials: Sequence[TrialRecord], began: float) -> Iterator[tuple[float, float]]:
    """The clock is the machine's, of the database and of this process."""
    ended = sorted(
        (trial.ended_at.timestamp(), trial.value)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value is not None and trial.ended_at is not None
    )
    best = float("-inf")
    for at, value in ended:
        if value > best:
            best = value
            yield at - began, best


def compared(studies: Sequence[Study], unpruned: Sequence[Study], tolerance: float) -> dict[str, Any]:
    targets = [study.best - tolerance for study in unpruned]
    own = [study.seconds_to(target) for study, target in zip(studies, targets, strict=True)]
    base = [study.seconds_to(target) for study, target in zip(unpruned, targets, strict=True)]
    pairs = [(one, other) for one, other in zip(base, own, strict=True) if one is not None and other is not None]
    return {
        "seconds_to_target": own,  # null: not reached
        "times_faster": [one / other for one, other in pairs],  # than the unpruned study, where it was reached
        "studies": [asdict(study) for study in studies],
    }


def show(workload: str, studies: dict[str, list[Study]], rows: dict[str, dict[str, Any]], tolerance: float) -> None:
    print(f"\n{workload}: {studies['none'][0].trials} trials; target: the unpruned study's best less {tolerance:g}")
    table = []
    for pruner, done in studies.items():
        known = [seconds for seconds in rows[pruner]["seconds_to_target"] if seconds is not None]
        faster = rows[pruner]["times_faster"]
        table.append([
            pruner,
            spread([study.seconds for study in done]),
            spread([study.epochs for study in done], ",.0f"),
            spread([study.pruned for study in done], ".0f"),
            f"{statistics.fmean(study.best for study in done):.4f}",
            f"{len(known)} of {len(done)}",
            spread(known) if known else "-",
            f"{statistics.median(faster):.2f} x" if faster else "-",
        ])  # fmt: skip
    head = ["pruner", "whole study, s", "epochs", "pruned", "mean best", "reached", "target after, s", "sooner"]
    show_table(head, table)


if __name__ == "__main__":
    main()
