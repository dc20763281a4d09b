"""`tuner worker`: processes that train trials, here or on any machine that reaches the database."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tuner.cli.context import Context, pass_context
from tuner.cli.output import Column, emit, format_option
from tuner.errors import InvalidInput

SLOTS_PER_CORE = 4  # more than so many trainings at once on a core only slow each other down
_GPUS = Path("/proc/driver/nvidia/gpus")

Command = TypeVar("Command", bound=Callable[..., Any])


def slot_options(command: Command) -> Command:
    """Adds what says how a worker trains: `--slots`, `--device` and `--hang-limit`."""
    for option in (
        click.option(
            "--hang-limit",
            "hang_seconds",
            type=click.FloatRange(1.0),
            metavar="SECONDS",
            help="Replace a training process that makes no step for so long.  [default: 120]",
        ),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            show_default=True,
            help="Where to train; auto: on GPUs where there are any.",
        ),
        click.option(
            "--slots",
            type=click.IntRange(1),
            metavar="N",
            help="Trials to train at a time.  [default: one for each GPU, else one for each core]",
        ),
    ):
        command = option(command)
    return command


@click.group("worker")
def command() -> None:
    """Start workers on any machine, and list them."""


@command.command()
@click.argument("studies", nargs=-1, metavar="[STUDY]...")
@slot_options
@click.option("--stop-with-stdin", is_flag=True, hidden=True, help="End as soon as standard input does.")
@pass_context
def start(
    context: Context,
    studies: tuple[str, ...],
    slots: int | None,
    device: str,
    hang_seconds: float | None,
    stop_with_stdin: bool,
) -> None:
    """Train trials of the named studies until all of them have ended.

    Without a name: of every study that runs, until a signal ends it. Ctrl-C or SIGTERM lets the running epochs finish
    and gives their trials back; a second one ends it at once.
    """
    slots = sensible_slots(slots, device)
    _log_to_stderr(context)
    url = context.database_url()

    from tuner.worker.run import WorkerOptions, run_worker
    from tuner.worker.supervisor import Ended
    from tuner.worker.timing import HANG_SECONDS

    options = WorkerOptions(
        slots=slots, device=device, hang_seconds=hang_seconds or HANG_SECONDS, stop_with_stdin=stop_with_stdin
    )
    if run_worker(url, context.settings, studies, options) is Ended.TERMINATED:
        raise click.Abort


@command.command("list")
@click.option("--all", "ended", is_flag=True, help="Also those that have ended.")
@format_option
@pass_context
def list_(context: Context, ended: bool, format: str) -> None:
    """List workers; lost: not heard of for half a minute, its trials go to others."""
    url = context.database_url()

    from tuner.storage.connection import Database
    from tuner.storage.workers import list_workers

    with Database(url) as db:
        rows = [vars(worker) for worker in list_workers(db, ended=ended)]
    columns = ("host", "pid", "state", "device", "slots", Column("trials", "training"), "studies", "last_seen")
    emit(rows, columns, format)


def sensible_slots(slots: int | None, device: str, workers: int = 1) -> int:
    """Slots for each of so many workers on this machine, the default where none are given.

    Raises InvalidInput for more than the machine has any use for.
    """
    cores = usable_cores()
    if slots is None:
        gpus = 0 if device == "cpu" else visible_gpus()
        slots = max(1, (gpus or cores) // max(workers, 1))
    most = SLOTS_PER_CORE * cores
    if workers * slots > most:
        asked = f"--slots {slots}" if workers == 1 else f"--workers {workers} with {slots} slots each"
        raise InvalidInput(f"{asked}: too many at once for the {cores} cores of this machine; at most {most} in all")
    return slots


def usable_cores() -> int:
    """Cores that this process may run on; batch systems and containers give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> int:
    """NVIDIA GPUs, counted without CUDA: asking it would take seconds and hold a context."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return 0 if visible in ("", "-1") else len(visible.split(","))
    return len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0


def _log_to_stderr(context: Context) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("tuner")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if context.quiet else logging.DEBUG if context.verbosity else logging.INFO)
