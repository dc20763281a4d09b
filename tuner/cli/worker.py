"""`tuner worker`: processes that train trials, here or on any machine that reaches the database."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.durations import duration
from tuner.cli.output import emit, format_option
from tuner.cli.slots import (
    AUTO,
    children,
    device_option,
    hang_limit_option,
    sensible_slots,
    slots_option,
    visible_gpus,
)

USE = ("GPUs", "processors", "memory")  # columns for what workers make of their machines


@click.group("worker")
def command() -> None:
    """Start workers on any machine, and list them."""


@command.command(short_help="Train trials of running studies.")
@click.argument("studies", nargs=-1, metavar="[STUDY]...")
@slots_option
@device_option
@hang_limit_option
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many trials.  [default: all]")
@click.option("--time-limit", type=duration, metavar="TIME", help="End after 90s, 30m, 2h, …; what runs is given back.")
@click.option("--stop-with-stdin", is_flag=True, hidden=True, help="End as soon as standard input does.")
@click.option("--await-orders", is_flag=True, hidden=True, help="Standard input says what to serve, when it is there.")
@pass_context
def start(
    context: Context,
    studies: tuple[str, ...],
    slots: int | None,
    device: str,
    hang_seconds: float | None,
    count: int | None,
    time_limit: float | None,
    stop_with_stdin: bool,
    await_orders: bool,
) -> None:
    """Train trials of the named studies until all of them have ended.

    Without a name: of every study that runs, until a signal ends it. Ctrl-C or SIGTERM lets the running epochs finish
    and gives their trials back; a second one ends it at once.

    Works on any machine that reaches the database (--database or TUNER_DATABASE_URL) and the artifacts
    (TUNER_ARTIFACTS). Exit code 0: the studies have ended, or the count or the time limit is reached; 130: a signal
    came; 8: trials only died here, so that something is wrong with this machine or with the code; others as
    `tuner --help` has them.
    """
    slots = sensible_slots(slots, device)
    _log_to_stderr(context)
    if await_orders:
        from tuner.worker.children import TRAINING, prepare_fork_server

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # sent away: nothing is to be given back
        prepare_fork_server(TRAINING)  # it imports torch while all else is imported here, and waited for

    from tuner.storage.retry import until_answered
    from tuner.worker import orders
    from tuner.worker.growth import FIRST_SLOTS
    from tuner.worker.lifetime import Ended
    from tuner.worker.run import WorkerOptions, run_worker
    from tuner.worker.timing import HANG_SECONDS

    if await_orders:
        ordered = orders.await_orders()
        if ordered is None:
            raise click.Abort
        url, studies = ordered.database_url, tuple(ordered.studies)
    else:
        url = until_answered(context.database_url)
    options = WorkerOptions(
        slots=slots or visible_gpus() * FIRST_SLOTS,
        children=children(device),
        growing=slots == AUTO,
        device=device,
        hang_seconds=hang_seconds or HANG_SECONDS,
        count=count,
        time_limit=time_limit,
        stop_with_stdin=stop_with_stdin,
    )
    if run_worker(url, context.settings, studies, options) is Ended.TERMINATED:
        raise click.Abort


@command.command("list", short_help="List workers.")
@click.option("--all", "ended", is_flag=True, help="Also those that have ended.")
@format_option
@pass_context
def list_(context: Context, ended: bool, format: str) -> None:
    """List workers; lost: not heard of for the length of its lease, its trials go to others."""
    with context.connect() as db:
        from tuner.storage.workers import list_workers

        workers = list_workers(db, ended=ended)
    rows = [asdict(worker) for worker in workers]
    used: list[str] = []
    if format == "table":
        from tuner.cli.workers_view import use_of

        for row, worker in zip(rows, workers, strict=True):
            row.update(zip(USE, use_of(worker), strict=True))
            row["serves"] = "all that run" if row["serves"] is None else ", ".join(row["serves"])
            row["training"] = _training(row["training"])
        used = [column for column in USE if any(row[column] for row in rows)]
    emit(rows, ("host", "pid", "state", "device", "slots", *used, "serves", "training", "last_seen", "reason"), format)


def _training(trials: Mapping[str, Sequence[int]]) -> str:
    """`digits-cnn 0-7, 12; etth1-rnn 3`."""
    from tuner.cli.workers_view import ranges

    return "; ".join(f"{study} {ranges(numbers)}" for study, numbers in trials.items())


def _log_to_stderr(context: Context) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d  %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("tuner")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if context.quiet else logging.DEBUG if context.verbose else logging.INFO)
