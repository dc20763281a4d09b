"""What a study costs besides its training: the start, the time between two trials, the whole, the memory.

    python benchmarks/overhead.py                # about five minutes, on a quiet machine
    python benchmarks/overhead.py --parts start  # one of start, study, memory

Every part runs `tuner launch` as a user would, with an embedded PostgreSQL of its own, fsync on. Three tables:

    start     seconds from the command to each step on the way to the first epoch that is reported: cold (an empty
              TUNER_HOME: the server is made, the data prepared) and warm (the server runs, the data is there)
    study     40 trials of search_spaces/digits_cnn.yaml: the share of the slots' time that is not training, of the
              whole command and of its time from the first trial's begin to the last one's end; how long a slot waits
              between two trials; what a trial spends in its child outside of its epochs
    memory    of the supervisor and of its children while they train 500 small trials
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from launching import Home, fresh_home
from processes import output
from side_by_side import listed, machine

from tuner.errors import DatabaseError
from tuner.storage.connection import Database

SPACES = Path(__file__).parent.parent / "search_spaces"
DIGITS, SPIRAL = SPACES / "digits_cnn.yaml", SPACES / "spiral_mlp.yaml"
SINGLE = "training.engine=single"  # in a stack, whose time an epoch takes cannot be said
CPU = ("--device", "cpu")
PARTS = ("start", "study", "memory")
POLL_SECONDS = 0.005
FIRST_MARK, LAST_MARK = 50, 500  # trials after which memory is looked at

# Of the table "start", in the order in which they happen where nothing is done at once.
CLUSTER, ANSWERS, WORKER, FORK_SERVER, STUDY, REGISTERED, CHILD, CLAIMED, EPOCH = STEPS = (
    "the server's files are made",
    "the server answers",
    "the worker's process starts",
    "its fork server starts",
    "the study is made",
    "the worker is registered",
    "the first child is forked: torch is imported",
    "the first trial is claimed",
    "the first epoch is reported",
)

PROGRESS = """
SELECT (SELECT count(*) FROM tuner.lease WHERE outcome IS NOT NULL) AS ended,
    (SELECT coalesce(max(epoch), 0) FROM tuner.lease) AS epoch
"""
TIMES = """
SELECT extract(epoch FROM (SELECT min(created_at) FROM tuner.study))::float AS study,
    extract(epoch FROM (SELECT min(started_at) FROM tuner.worker))::float AS worker,
    extract(epoch FROM (SELECT min(started_at) FROM tuner.attempt))::float AS claim,
    extract(epoch FROM (SELECT max(ended_at) FROM tuner.attempt))::float AS last
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="starts of each kind")
    parser.add_argument("--trials", type=int, default=40, help="of the part study")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "machine": {**machine(), "load": round(os.getloadavg()[0], 1), "torch": torch.__version__}
    }
    if "start" in options.parts:
        results["start"] = {"cold": [], "warm": []}
        for _ in range(options.rounds):
            with fresh_home(with_data=False) as home:
                results["start"]["cold"].append(start(home))
                with Database(home.server.start()) as db:
                    db.execute("TRUNCATE public.studies, tuner.worker CASCADE")
                results["start"]["warm"].append(start(home))
    if "study" in options.parts:
        results["study"] = {method: study(method, options.trials) for method in ("random", "tpe")}
    if "memory" in options.parts:
        results["memory"] = memory()
    print(json.dumps(results, indent=2) if options.json else "\n\n".join(tables(results)))


# --- start -----------------------------------------------------------------------------------------------------------


def start(home: Home) -> dict[str, float]:
    """Step -> seconds after the command at which it happened; those that did not happen are left out."""
    warm = home.server.status().running
    began = time.time()
    launch = home.start(DIGITS, ["search.method=random"], name="digits", options=CPU)
    seen: dict[str, float] = {}
    with Database(home.server.start() if warm else _first_answer(home, launch, seen)) as db:
        while not _reported(db):
            _check(launch)
            time.sleep(POLL_SECONDS)
        seen[EPOCH] = time.time()
        seen |= _processes(launch.pid, began)
        (row,) = db.execute(TIMES)
    seen |= {STUDY: row.study, REGISTERED: row.worker, CLAIMED: row.claim}
    launch.send_signal(signal.SIGINT)
    launch.communicate()
    return {step: round(seen[step] - began, 3) for step in STEPS if step in seen}


def _first_answer(home: Home, launch: subprocess.Popen[str], seen: dict[str, float]) -> str:
    """The URL of the server that the launch makes."""
    while (url := home.server.status().url) is None:
        _check(launch)
        if CLUSTER not in seen and list(home.folder.glob("postgres/data/PG_VERSION")):
            seen[CLUSTER] = time.time()
        time.sleep(POLL_SECONDS)
    seen[ANSWERS] = time.time()
    return url


def _reported(db: Database) -> bool:
    try:
        (row,) = db.execute(PROGRESS)
    except DatabaseError:  # the tables are not there yet
        return False
    return bool(row.epoch)


def _processes(launch: int, began: float) -> dict[str, float]:
    """When those that the launch started began, to a hundredth of a second: told against its own beginning."""
    command = psutil.Process(launch)
    shift = began - command.create_time()
    family = {process: process.cmdline() for process in command.children(recursive=True)}
    worker = next(process for process, line in family.items() if "worker" in line)
    servers = [process for process, line in family.items() if "forkserver" in " ".join(line)]  # and what it forked
    server, *children = sorted(servers, key=lambda process: process.create_time())
    return {
        step: process.create_time() + shift
        for step, process in {WORKER: worker, FORK_SERVER: server, CHILD: children[0]}.items()
    }


def _check(launch: subprocess.Popen[str]) -> None:
    if launch.poll() is not None:
        raise SystemExit(f"tuner launch ended too early\n{output(launch)}")


# --- study -----------------------------------------------------------------------------------------------------------


def study(method: str, trials: int) -> dict[str, float]:
    sets = [f"search.method={method}", f"budget={{trials: {trials}}}", SINGLE]
    with fresh_home(with_data=False) as home:
        began = time.time()
        launch = home.start(DIGITS, sets, name="digits", options=CPU)
        output(launch)
        ended = time.time()
        whole = ended - began
        with Database(home.server.start()) as db:
            (times,) = db.execute(TIMES)
            (worker,) = db.execute("SELECT slots FROM tuner.worker")
        epochs = re.findall(r"  epoch \d+  .* (\S+) s$", logs(home, "*/*/*.log"), re.MULTILINE)
        trained = sum(map(float, epochs)) / worker.slots
        waits = slot_waits(logs(home, "workers/*.log"))
    return {
        "seconds": round(whole, 2),
        "of these before the first trial": round(times.claim - began, 2),
        "of these after the last trial": round(ended - times.last, 2),
        "not training, of the whole": round(1 - trained / whole, 4),
        "not training, from the first trial to the last": round(1 - trained / (times.last - times.claim), 4),
        "a slot waits, median ms": round(1000 * statistics.median(waits), 1),
        "a slot waits, 95 % ms": round(1000 * statistics.quantiles(waits, n=20)[-1], 1),
    }


def logs(home: Home, pattern: str) -> str:
    return "".join(file.read_text() for file in (home.folder / "artifacts").glob(pattern))


def slot_waits(log: str) -> list[float]:
    """Seconds from each complete trial to the next one in its slot, as a worker's log tells them."""
    waits: list[float] = []
    slots: dict[str, str] = {}  # of the trials that run
    free: dict[str, float] = {}  # slot -> since when
    for stamp, trial, slot, complete in re.findall(
        r"^(\S+ \S+)  trial (\d+)(?:, attempt \d+, in slot (\d+)|( complete))$", log, re.MULTILINE
    ):
        now = datetime.fromisoformat(stamp).timestamp()
        if complete:
            free[slots.pop(trial)] = now
        else:
            slots[trial] = slot
            if slot in free:
                waits.append(now - free.pop(slot))
    return waits


# --- memory ----------------------------------------------------------------------------------------------------------


def memory() -> dict[str, dict[str, Any]]:
    """Process -> MiB after so many trials, and by how much they grew.

    Most of a child is torch, shared with its fork server: what it shares no more counts as its own. That grows, ever
    more slowly, as it writes to the pages that it was forked with.
    """
    measured: dict[str, dict[str, Any]] = {}
    with fresh_home(with_data=False) as home:
        budget = f"budget={{trials: {LAST_MARK + 20}}}"
        sets = ["search.method=random", "training.epochs=3", budget, SINGLE]
        launch = home.start(SPIRAL, sets, name="spiral", options=CPU)
        ended = 0
        with Database(_first_answer(home, launch, {})) as db:
            for mark in (FIRST_MARK, LAST_MARK):
                while ended < mark:
                    _check(launch)
                    time.sleep(10 * POLL_SECONDS)
                    with contextlib.suppress(DatabaseError):  # the tables are not there yet
                        ended = db.execute(PROGRESS)[0].ended
                for name, process in _training_processes(launch.pid).items():
                    seen = process.memory_full_info()
                    sizes = measured.setdefault(name, {})
                    sizes[f"{mark} trials"] = round(seen.rss / 2**20, 1)
                    sizes[f"{mark} trials, its own"] = round(seen.uss / 2**20, 1)
        output(launch)
    for sizes in measured.values():
        sizes["growth"] = f"{sizes[f'{LAST_MARK} trials'] / sizes[f'{FIRST_MARK} trials'] - 1:.1%}"
    return measured


def _training_processes(launch: int) -> dict[str, psutil.Process]:
    family = psutil.Process(launch).children(recursive=True)
    (supervisor,) = (process for process in family if "worker" in process.cmdline())
    children = [process for process in family if os.getsid(process.pid) == process.pid and process != supervisor]
    return {"supervisor": supervisor} | {f"child {index}": child for index, child in enumerate(children)}


# --- showing ---------------------------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> Iterator[str]:
    yield listed(results["machine"])
    if started := results.get("start"):
        rows = [[step, *(_seconds(runs, step) for runs in started.values())] for step in STEPS]
        yield _table([f"seconds to (n = {len(started['cold'])})", *started], rows)
    if studied := results.get("study"):
        yield _table(
            ["digits", *studied], [[row, *(run[row] for run in studied.values())] for row in studied["random"]]
        )
    if measured := results.get("memory"):
        columns = list(measured["supervisor"])
        rows = [[name, *sizes.values()] for name, sizes in measured.items()]
        yield _table(["MiB after", *columns], rows)


def _seconds(runs: Sequence[dict[str, float]], step: str) -> str:
    taken = [run[step] for run in runs if step in run]
    return f"{statistics.median(taken):.2f} ({min(taken):.2f}-{max(taken):.2f})" if taken else "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join(f"{row[0]:48}" + "".join(f"{cell:>22}" for cell in row[1:]) for row in (head, *rows))


if __name__ == "__main__":
    main()
