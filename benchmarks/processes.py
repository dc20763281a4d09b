"""Commands, and the CPU time of everything that they start; functions run by several processes at once."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Answer = TypeVar("Answer")

PR_SET_CHILD_SUBREAPER = 36  # of linux/prctl.h
ERROR_CHARACTERS = 4000  # that are shown of what a failed command said
END_SECONDS = 10.0  # what a command leaves behind (a fork server, a daemon that was told to stop) ends within this


def adopt_orphans() -> str:
    """Has the system count also descendants whose parent ends before them; says what is counted.

    PostgreSQL, fork servers and Ray's daemons leave their parents: without this their CPU time would be nobody's.
    """
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
        return "of all processes that a contestant starts, daemons and PostgreSQL too"
    return "of a contestant's processes, without daemons and PostgreSQL"


def ended_cpu_seconds() -> float:
    """CPU time of all descendants that have ended, user and system; waits for those that are about to."""
    deadline = time.monotonic() + END_SECONDS
    with contextlib.suppress(ChildProcessError):  # there is none left
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def output(process: subprocess.Popen[str]) -> str:
    """What the command printed, once it has ended; ends the benchmark with what it said where it failed."""
    try:
        said, errors = process.communicate()
    except BaseException:  # Ctrl-C
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        words = " ".join(map(str, process.args))  # type: ignore[arg-type]
        raise SystemExit(f"{words}\nended with code {process.returncode}:\n{errors[-ERROR_CHARACTERS:]}")
    return said


def together(processes: int, work: Callable[..., Answer], *arguments: Any) -> list[Answer]:
    """What `work(barrier, *arguments)` returns in each process; they wait for each other at the barrier."""
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(processes), spawn.SimpleQueue()
    workers = [spawn.Process(target=_answer, args=(answers, work, start, *arguments)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"{arguments[0]}: a process failed")
    return [answers.get() for _ in workers]


def _answer(answers: Any, work: Callable[..., Answer], start: Any, *arguments: Any) -> None:
    try:
        answers.put(work(start, *arguments))
    except BaseException:
        start.abort()  # or the others would wait for it
        raise
