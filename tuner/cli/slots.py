"""How much is trained at a time, on which devices: the options that say so, and what this machine has."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tuner.errors import InvalidInput

SLOTS_PER_CORE = 4  # more than so many trainings at once on a core only slow each other down
_GPUS = Path("/proc/driver/nvidia/gpus")


class FiniteFloatRange(click.FloatRange):
    """A range of numbers; click's own lets NaN through, which is neither too low nor too high."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


AUTO = 0  # slots: on GPUs, as many as pay


class SlotCount(click.IntRange):
    """A number, or `auto`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return AUTO if value in ("auto", AUTO) else int(super().convert(value, param, ctx))


slots_option = click.option(
    "--slots",
    type=SlotCount(1),
    metavar="N",
    help="Trials to train at a time; auto: on a GPU, as many as pay.  [default: one for each GPU, else for each core]",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train; auto: on GPUs where there are any.",
)
hang_limit_option = click.option(
    "--hang-limit",
    "hang_seconds",
    type=FiniteFloatRange(1.0),
    metavar="SECONDS",
    help="Replace a training process that makes no step for so long.  [default: 120]",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Worker processes to start here; 0 makes the studies and starts nothing.",
)


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The workers that a command is to start on this machine."""

    workers: int
    slots: int  # of each, or AUTO
    device: str  # auto, cpu or cuda
    hang_seconds: float | None  # None: the worker's own
    words: tuple[str, ...]  # of the command line that asked for it


def crew_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--workers`, `--slots`, `--device` and `--hang-limit`; the command gets them as one argument, `crew`."""

    @functools.wraps(command)
    def gathering(
        *args: Any, workers: int, slots: int | None, device: str, hang_seconds: float | None, **others: Any
    ) -> Any:
        given = {
            "--workers": workers if workers > 1 else None,
            "--slots": "auto" if slots == AUTO else slots,
            "--device": None if device == "auto" else device,
            "--hang-limit": hang_seconds,
        }
        crew = Crew(
            workers=workers,
            slots=sensible_slots(slots, device, workers),
            device=device,
            hang_seconds=hang_seconds,
            words=tuple(str(word) for option in given.items() if option[1] is not None for word in option),
        )
        return command(*args, crew=crew, **others)

    return workers_option(slots_option(device_option(hang_limit_option(gathering))))


def sensible_slots(slots: int | None, device: str, workers: int = 1) -> int:
    """Slots for each of so many workers on this machine, the default where none are given; AUTO only for GPUs.

    Raises InvalidInput for more than the machine has any use for.
    """
    from tuner.training.machine import usable_cores

    cores = usable_cores()
    gpus = 0 if device == "cpu" else visible_gpus()
    if slots is None or (slots == AUTO and not gpus):
        slots = max(1, (gpus or cores) // max(workers, 1))
    most = SLOTS_PER_CORE * cores
    if workers * slots > most:
        asked = f"--slots {slots}" if workers == 1 else f"--workers {workers} with {slots} slots each"
        raise InvalidInput(f"{asked}: too many at once for the {cores} cores of this machine; at most {most} in all")
    return slots


def children(device: str) -> int | None:
    """Processes among which a worker's slots are divided: one for each GPU, which several would only take turns on.

    None: one for each slot.
    """
    return None if device == "cpu" else visible_gpus() or None


def visible_gpus() -> int:
    """NVIDIA GPUs, counted without CUDA: asking it would take seconds and hold a context."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return 0 if visible in ("", "-1") else len(visible.split(","))
    return len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0


def check_device(device: str) -> None:
    """Raises InvalidInput for `cuda` where there is no GPU."""
    if device == "cuda" and not visible_gpus():
        from tuner.training.device import choose_device

        choose_device(device)  # torch knows for certain, but to import it takes a second
