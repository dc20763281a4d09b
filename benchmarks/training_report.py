"""What benchmarks/training.py makes of its runs, and its tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from arithmetic import trial_flops
from jobs import Job, flat
from side_by_side import show_table, spread
from training_contestants import Contestant, Run

from tuner.training.data import info

AGREE = 3.0  # standard errors

Rows = Mapping[str, Mapping[str, Any]]  # by the contestants' names
Runs = Mapping[str, Sequence[Run]]


def summary(runs: Runs, job: Job, entrants: Mapping[str, Contestant], peaks: Mapping[str, float]) -> Rows:
    data, trials = info(job.data), len(job.configs)
    flops = sum(trial_flops(flat(config), data) for config in job.configs)
    choose = max if job.spec.objective.direction == "maximize" else min
    seconds = {name: statistics.median(run.seconds for run in done) for name, done in runs.items()}
    scores = {name: mean_scores(done) for name, done in runs.items()}
    reference = scores[next(iter(scores))]
    rows = {}
    for name, done in runs.items():
        known = [score for score in scores[name] if score is not None]
        capable = peaks[entrants[name].precision]
        rows[name] = {
            "trials_per_hour": [3600 * trials / run.seconds for run in done],
            "cpu_seconds_per_trial": [run.cpu_seconds / trials for run in done],
            "times_plain": seconds["plain"] / seconds[name] if "plain" in runs else None,
            "times_careful": seconds["careful"] / seconds[name] if "careful" in runs else None,
            "arithmetic": flops / capable / seconds[name],
            "first_epoch": [run.first_epoch for run in done if run.first_epoch is not None],
            "score": mean_and_error(known),
            "best": choose(known),
            "diverged": len(scores[name]) - len(known),
            "difference": mean_and_error(differences(scores[name], reference)),
        }
    return rows


def mean_scores(runs: Sequence[Run]) -> list[float | None]:
    """Of each configuration, over the rounds; None where it diverged in one of them."""
    by_trial = zip(*(run.values for run in runs), strict=True)
    return [None if None in values else statistics.fmean(values) for values in by_trial]


def differences(scores: Sequence[float | None], reference: Sequence[float | None]) -> list[float]:
    pairs = zip(scores, reference, strict=True)
    return [one - other for one, other in pairs if one is not None and other is not None]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return statistics.fmean(values), error


def agree(row: Mapping[str, Any]) -> bool:
    mean, error = row["difference"]
    return bool(abs(mean) <= AGREE * error)


def show(job: Job, rows: Rows, entrants: Mapping[str, Contestant], startup: Mapping[str, Sequence[float]]) -> None:
    spec = job.spec
    print(f"\n{spec.name}: {len(job.configs)} trials of {spec.epochs} epochs")
    table = []
    for name, row in rows.items():
        mean, error = row["score"]
        difference, its_error = row["difference"]
        table.append([
            entrants[name].label,
            spread(row["trials_per_hour"], ",.0f"),
            spread(row["cpu_seconds_per_trial"]),
            *(f"{row[times]:.2f} x" if row[times] else "-" for times in ("times_plain", "times_careful")),
            f"{row['arithmetic']:.1%}",
            spread(row["first_epoch"]) if row["first_epoch"] else "-",
            f"{mean:.4f} ± {error:.4f}",
            f"{row['best']:.4f}",
            f"{difference:+.4f} ± {its_error:.4f}",
            "yes" if agree(row) else "NO",
        ])  # fmt: skip
    first = next(iter(rows))
    metric = spec.objective.metric
    show_table(
        [
            "", "trials/hour", "CPU s/trial", "x plain", "x careful", "arithmetic", "first epoch, s",
            f"mean {metric}", "best", f"against {first}", "agrees",
        ],
        table,
    )  # fmt: skip
    counts = {name: row["diverged"] for name, row in rows.items()}
    if any(counts.values()):
        print("diverged: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    if not all(map(agree, rows.values())):
        print(f"SCORES DIFFER by more than {AGREE:g} standard errors: what is faster here trains otherwise")
    if startup:
        print("tuner, seconds to the first epoch: " + "; ".join(f"{how} {spread(s)}" for how, s in startup.items()))
