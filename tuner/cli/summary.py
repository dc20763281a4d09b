"""A study in a few words: what scripts get as its result, what people read at its end, what is to be done next.

Imported by commands when they run, never at the start of `tuner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.cli.context import Context
from tuner.cli.output import clock, duration
from tuner.cli.snapshot import Snapshot
from tuner.spec.study import StudySpec
from tuner.states import Outcome, StudyState, TrialState

# Outcomes that the counts of Optuna's states do not tell already.
_TOLD_BY_STATE = (Outcome.COMPLETE, Outcome.PRUNED)


def result(snapshot: Snapshot) -> dict[str, Any]:
    """The object that `tuner launch --format json` prints; its keys are a promise to scripts."""
    best, counts = snapshot.best, snapshot.counts
    return {
        "study": snapshot.name,
        "state": snapshot.state,
        "trials": {
            "complete": counts[TrialState.COMPLETE],
            "pruned": counts[TrialState.PRUNED],
            "failed": counts[TrialState.FAIL],
        },
        "best": {"number": best.number, "value": best.value, "params": best.params} if best else None,
        "engine": None if snapshot.engine is None else vars(snapshot.engine),
        "seconds": round(snapshot.trained_seconds, 3),  # of training, summed over all slots
    }


def closing(context: Context, snapshot: Snapshot, baselines: Mapping[str, float] | None = None) -> dict[str, Any]:
    """What `tuner launch` tells a person once the study has ended; baselines need no training."""
    return {
        "study": f"{snapshot.name}, {snapshot.state}",
        "trials": counted(snapshot),
        "training": {"seconds": snapshot.trained_seconds, "epochs": snapshot.trained_epochs},
        **({"engine": str(snapshot.engine)} if snapshot.engine else {}),
        "best": best_of(snapshot),
        **({"baselines": baselines} if baselines else {}),
        "next": next_commands(context, snapshot),
    }


def counted(snapshot: Snapshot) -> str:
    """`40: 30 complete, 8 pruned, 2 failed (1 diverged, 2 crashed)`."""
    words = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    text = f"{len(snapshot.finished)}: " + ", ".join(f"{n} {words[state]}" for state, n in snapshot.counts.items())
    told = [f"{n} {outcome}" for outcome, n in snapshot.outcomes.items() if outcome not in _TOLD_BY_STATE]
    return text + (f" ({', '.join(told)})" if told else "")


def planned(study: Snapshot | StudySpec) -> str:
    """The budget: `40 trials of at most 20 epochs, 500 epochs in all`."""
    budget = study.budget
    words = [f"{f'{budget.trials:,} trials' if budget.trials else 'trials'} of at most {study.epochs} epochs"]
    if budget.total_epochs:
        words.append(f"{budget.total_epochs:,} epochs in all")
    if budget.seconds:
        words.append(f"{duration(budget.seconds)} of training in all")
    if budget.failures:
        words.append(f"paused after {budget.failures} failures")
    return ", ".join(words)


def done(snapshot: Snapshot) -> str:
    """How much of the budget is spent: `14 of 40 trials`, `14 trials, 210 of 1000 epochs`."""
    budget, count = snapshot.budget, len(snapshot.finished)
    words = [f"{count} of {budget.trials} trials" if budget.trials else f"{count} trials"]
    if budget.total_epochs:
        words.append(f"{snapshot.trained_epochs} of {budget.total_epochs} epochs")
    if budget.seconds:
        words.append(f"{duration(snapshot.trained_seconds)} of {duration(budget.seconds)}")
    return ", ".join(words)


def expected_end(snapshot: Snapshot) -> str | None:
    """`expected end in 12 m 30 s (14:32)`; None while it is not known."""
    seconds, end = snapshot.remaining_seconds, snapshot.expected_end
    if seconds is None or end is None:
        return None
    return f"expected end in {duration(seconds)} ({clock(end, snapshot.looked_at)})"


def best_of(snapshot: Snapshot) -> dict[str, Any] | None:
    best = snapshot.best
    if best is None:
        return None
    return {
        "trial": best.number,
        snapshot.metric: best.value,
        "epoch": f"{best.best_epoch} of {snapshot.epochs}",
        "params": best.params,
    }


def status(context: Context, snapshot: Snapshot) -> str:
    """`running, no worker, 31 of 40 trials; next: tuner worker start digits-cnn`."""
    workers = snapshot.live_workers
    count = "no worker" if workers == 0 else f"{workers} worker{'s' if workers > 1 else ''}"
    at_work = "" if snapshot.state.ended else f", {count}"
    _, command = next(iter(next_commands(context, snapshot).items()))
    why = f" ({snapshot.reason})" if snapshot.reason else ""
    return f"{snapshot.state}{why}{at_work}, {done(snapshot)}; next: {command}"


def next_commands(context: Context, snapshot: Snapshot) -> Mapping[str, str]:
    """What may be done next, the most needed first: purpose -> command."""
    name = snapshot.name

    def command(*words: str) -> str:
        return context.command_line(*words)

    match snapshot.state:
        case StudyState.RUNNING | StudyState.STOPPING if snapshot.live_workers == 0:
            return {"train": command("worker", "start", name)}
        case StudyState.RUNNING | StudyState.STOPPING:
            return {"watch": command("study", "watch", name)}
        case StudyState.PAUSED | StudyState.CANCELLED:
            return {"resume": command("study", "resume", name)}
    resume = {"resume": command("study", "resume", name)} if snapshot.goes_on else {}  # it was stopped
    if snapshot.best is None:
        return resume or {"see why": command("trial", "list", name)}
    return {
        "export": command("trial", "export", name, "best", "--to", f"{name}-best"),
        "test": command("study", "evaluate", name),
        "show": command("trial", "show", name, "best"),
        "dashboard": command("dashboard"),
        **resume,
    }
