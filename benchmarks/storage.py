"""What it costs to keep a study in PostgreSQL: Optuna's RDBStorage, its gRPC proxy, PostgresStorage, tuner's worker.

    pip install -e '.[benchmarks]'
    python benchmarks/storage.py                # about 20 minutes, on a quiet machine
    python benchmarks/storage.py --quick        # four minutes, to see that it works

All contestants use one embedded PostgreSQL of this run's own, fsync on. TPE, a median pruner, 5 parameters, 20 epochs
a trial, each reported and judged alone; nothing is trained, so this is the most that any storage could cost. Their
order changes from round to round. Four tables:

    messages       to the server, and statements in them, by operation of one trial: the server's own log
    trials/s       of 1 and of 8 processes, that add the same number of trials to a study of 100: samplers and pruners
                   work the harder the more there are
    cold start     of a new process on a study of 5,000 trials: until its storage has read all of them, and until the
                   first trial has its point; then 8 processes at once, until the last one has
    ask            and suggest, by the trials that the study has: in the storage, and in the sampler's arithmetic
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
from processes import together
from side_by_side import listed, machine, rotated, show_table, spread
from storage_contestants import CONTESTANTS, RDB, Place, Session, make_study, opened, spec

from tuner.storage.connection import Database
from tuner.storage.server import EmbeddedServer

EPOCHS = spec("storage").epochs
FILLED = 100  # trials that a study of the throughput table begins with
OPERATIONS = ("ask", "suggest", "report", "should_prune", "tell")


@dataclass(frozen=True, kw_only=True)
class Form:
    rounds: int
    trials: int  # that each process adds, to measure throughput
    processes: Sequence[int]
    cold_trials: int
    sizes: Sequence[int]  # of studies, for the latency of ask
    asks: int


FULL = Form(rounds=3, trials=40, processes=(1, 8), cold_trials=5000, sizes=(0, 1000, 5000), asks=20)
QUICK = Form(rounds=1, trials=4, processes=(1, 8), cold_trials=500, sizes=(0, 500), asks=5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short form, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    options = parser.parse_args()
    form = QUICK if options.quick else FULL
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="tuner-benchmark-") as home:
        Path(home).chmod(0o711)  # root's PostgreSQL runs as another user
        server = EmbeddedServer(Path(home) / "postgres")
        url = server.start()
        try:
            results: dict[str, Any] = {"machine": {**machine(), **versions(url)}, "form": vars(form)}
            results["messages"] = {name: messages(name, url, server.folder / "log") for name in CONTESTANTS}
            results["throughput"] = interleaved(
                form.rounds, [functools.partial(throughput, url=url, form=form, processes=n) for n in form.processes]
            )
            results["cold"] = interleaved(form.rounds, [functools.partial(cold_start, url=url, form=form)])
            results["ask"] = interleaved(
                form.rounds, [functools.partial(ask_latency, url=url, form=form, trials=size) for size in form.sizes]
            )
        finally:
            server.stop()
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        show(results, form)


def interleaved(
    rounds: int, measurements: list[Callable[[str], dict[str, float]]]
) -> dict[str, dict[str, list[float]]]:
    """contestant -> quantity -> a value for each round; every round has another order."""
    names = list(CONTESTANTS)
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for turn in range(rounds):
        for measure in measurements:
            for name in rotated(names, turn):
                for quantity, value in measure(name).items():
                    measured[name].setdefault(quantity, []).append(value)
    return measured


# --- messages --------------------------------------------------------------------------------------------------------


def messages(contestant: str, url: str, log: Path) -> dict[str, tuple[float, float]]:
    """operation -> (messages, statements) of one call, as the server logs them; the mean of three trials."""
    study = make_study(url, contestant, FILLED)
    counted: dict[str, list[tuple[int, int]]] = {operation: [] for operation in OPERATIONS}

    @contextmanager
    def counting(operation: str) -> Iterator[None]:
        start = log.stat().st_size
        yield
        logged = re.findall(
            r"LOG:  statement: (.*?)(?=^\S|\Z)", log.read_bytes()[start:].decode(), re.DOTALL | re.MULTILINE
        )
        statements = [part.strip() for message in logged for part in message.split(";") if part.strip()]
        work = [part for part in statements if not re.match("BEGIN|COMMIT|ROLLBACK", part)]
        counted[operation].append((len(logged), len(work)))

    with Database(url) as db:
        db.execute("ALTER DATABASE tuner SET log_statement = 'all'")
        try:
            with opened(contestant, url) as place:
                session = CONTESTANTS[contestant](place, study)
                train(session)
                for _ in range(3):
                    train(session, around=counting)
        finally:
            db.execute("ALTER DATABASE tuner RESET log_statement")
    return {
        operation: (statistics.fmean(m for m, _ in counts), statistics.fmean(s for _, s in counts))
        for operation, counts in counted.items()
    }


@contextmanager
def unobserved(operation: str) -> Iterator[None]:
    yield


def train(session: Session, *, around: Any = unobserved) -> None:
    """One trial, without training."""
    with around("ask"):
        trial = session.ask()
    with around("suggest"):
        session.suggest(trial)
    for epoch in range(1, EPOCHS + 1):
        with around("report"):
            session.report(trial, epoch)
        with around("should_prune"):
            session.should_prune(trial)
    with around("tell"):
        session.tell(trial)


# --- trials/s --------------------------------------------------------------------------------------------------------


def throughput(contestant: str, *, url: str, form: Form, processes: int) -> dict[str, float]:
    study = make_study(url, contestant, FILLED)
    with opened(contestant, url) as place:
        seconds = max(together(processes, _work, contestant, place, study, form.trials))
    return {counted(processes): processes * form.trials / seconds}


def _work(start: Barrier, contestant: str, place: Place, study: str, trials: int) -> float:
    """Seconds for so many trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    session = CONTESTANTS[contestant](place, study)
    train(session)
    start.wait()
    began = time.perf_counter()
    for _ in range(trials):
        train(session)
    return time.perf_counter() - began


# --- cold start ------------------------------------------------------------------------------------------------------


def cold_start(contestant: str, *, url: str, form: Form) -> dict[str, float]:
    study = make_study(url, contestant, form.cold_trials)
    seconds = {}
    for processes in form.processes:
        with opened(contestant, url) as place:
            seconds[counted(processes)] = max(together(processes, _begin, contestant, place, study))
    return seconds


def _begin(start: Barrier, contestant: str, place: Place, study: str) -> float:
    """Seconds until the first trial has its point: all trials are read for it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _imports()
    start.wait()
    began = time.perf_counter()
    session = CONTESTANTS[contestant](place, study)
    session.suggest(session.ask())
    return time.perf_counter() - began


def _imports() -> None:
    """What the contestants import when first used is no part of their start."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=1), storage="sqlite:///:memory:")
    for _ in range(3):
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


# --- ask -------------------------------------------------------------------------------------------------------------


def ask_latency(contestant: str, *, url: str, form: Form, trials: int) -> dict[str, float]:
    """Medians, in milliseconds."""
    study = make_study(url, contestant, trials)
    storage, arithmetic = [], []
    with opened(contestant, url) as place:
        session = CONTESTANTS[contestant](place, study)
        train(session)
        for _ in range(form.asks):
            before, start = session.storage_seconds, time.perf_counter()
            trial = session.ask()
            session.suggest(trial)
            total = time.perf_counter() - start
            storage.append(session.storage_seconds - before)
            arithmetic.append(total - storage[-1])
            session.report(trial, 1)
            session.tell(trial)
    return {
        f"{trials} storage": 1000 * statistics.median(storage),
        f"{trials} arithmetic": 1000 * statistics.median(arithmetic),
    }


def counted(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


# --- showing ---------------------------------------------------------------------------------------------------------


def versions(url: str) -> dict[str, str]:
    with Database(url) as db:
        (row,) = db.execute("SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync")
    return {"optuna": optuna.__version__, "postgresql": row.version, "fsync": row.fsync}


def show(results: dict[str, Any], form: Form) -> None:
    print(listed(results["machine"]))
    print(f"n = {form.rounds} interleaved rounds; medians (min-max)\n")
    show_table(
        ["messages (statements)", *OPERATIONS],
        [
            [name, *(f"{counts[operation][0]:.3g} ({counts[operation][1]:.3g})" for operation in OPERATIONS)]
            for name, counts in results["messages"].items()
        ],
    )
    compare("trials/s", results["throughput"], more_is_better=True)
    compare(f"cold start at {form.cold_trials} trials, s", results["cold"], more_is_better=False)
    rows = []
    for name, quantities in results["ask"].items():
        for part in ("storage", "arithmetic"):
            row = [quantities[f"{size} {part}"] for size in form.sizes]
            growth = statistics.median(row[-1]) / statistics.median(row[0])
            rows.append([f"{name}: {part}", *map(spread, row), f"{growth:.2f} x"])
    print()
    show_table(["ask and suggest, ms", *(f"{size} trials" for size in form.sizes), "growth"], rows)


def compare(title: str, measured: dict[str, dict[str, list[float]]], *, more_is_better: bool) -> None:
    """With how much better than RDBStorage a contestant is, in each column."""
    rows = []
    for name, quantities in measured.items():
        cells = []
        for quantity, values in quantities.items():
            median, base = statistics.median(values), statistics.median(measured[RDB][quantity])
            ratio = median / base if more_is_better else base / median
            cells.append(f"{spread(values)} {ratio:6.1f} x")
        rows.append([name, *cells])
    print()
    show_table([title, *measured[RDB]], rows)


if __name__ == "__main__":
    main()
