"""Workers that a command starts here: staying with them until their work is done, ending them when told to."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from tuner.cli.context import Context
from tuner.cli.slots import Crew, check_device

if TYPE_CHECKING:
    from tuner.launchers.local import LocalWorkers

EXIT_SECONDS = 20.0  # workers end by themselves within this once nothing is left to do
DRAIN_SECONDS = 30.0  # or once told to; after that they are told again, more sternly each time
_OVER = object()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def early_workers(context: Context, crew: Crew, *, detached: bool = False) -> LocalWorkers:
    """Workers as the command line asks for them: they get ready while the launch does what it has to do first.

    A context: where it is left before they were told what to serve, they end. Raises InvalidInput for GPUs that are not
    there.
    """
    from tuner.launchers.local import LocalWorkers

    check_device(crew.device)
    workers = LocalWorkers(
        settings=context.settings,
        slots=crew.slots,
        device=crew.device,
        hang_seconds=crew.hang_seconds,
        detached=detached,
        options=context.loudness,
    )
    workers.start(crew.workers)
    return workers


def attend(workers: LocalWorkers, looks: Iterator[None], say: Callable[[str], None]) -> None:
    """Takes one look after the other until no worker is left; no more looks mean that the work is done.

    Looks pace themselves. Between two of them signals are passed on: the first lets the workers finish their epochs,
    a second ends them at once, a third kills. Raises click.Abort after a signal, once all have ended. Whether the
    workers did what they were to is for the caller to see.
    """
    with closing(workers), _caught_signals() as caught:
        told = failed = 0
        deadline = math.inf
        while workers.running:
            if next(looks, _OVER) is _OVER:
                deadline = min(deadline, time.monotonic() + EXIT_SECONDS)
                workers.wait(0.2)
            failures = list(workers.failures())
            if workers.running and not told:
                for failure in failures[failed:]:
                    say(f"a worker ended, {workers.running} go on: {failure}")
            failed = len(failures)
            if told < len(caught) or time.monotonic() > deadline:
                if caught and not told:
                    say("finishing the running epochs; Ctrl-C again to end at once")
                workers.terminate()
                told, deadline = told + 1, time.monotonic() + DRAIN_SECONDS
        if caught:
            raise click.Abort


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Signals go into the list instead of ending the process."""
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: caught.append(received))
        for number in _SIGNALS
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN  # nohup
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
