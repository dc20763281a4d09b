"""The process behind `preflight`: it reads a question, tries trials out and writes the answer."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from signal import Signals
from typing import Any

import torch
from pydantic import TypeAdapter

from tuner.errors import TunerError
from tuner.spec.config import TrialConfig
from tuner.spec.study import spec_from_document
from tuner.training import data
from tuner.training.batches import data_memory
from tuner.training.corners import find_corners
from tuner.training.device import choose_device
from tuner.training.dry_run import bfloat16_gain, dry_run
from tuner.training.engine import Measured, measure
from tuner.training.errors import InfeasibleModel, is_out_of_memory
from tuner.training.machine import available_memory, limit_memory
from tuner.training.preflight import Corner, DryRun, Preflight, Question
from tuner.training.progress import NoProgress
from tuner.training.warmup import warm_up

ANSWER_SECONDS = 20.0  # a fork that takes longer is killed; most take less than one

_FORKS = multiprocessing.get_context("fork")


class _Failed(Exception):
    """Why a fork found nothing out."""


def main() -> None:
    warm_up()  # as in a worker: no thread has started, so that forks may train
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a model's code prints is no answer
    question = TypeAdapter(Question).validate_json(sys.stdin.buffer.read())
    try:
        answer = _examine(question)
    except (TunerError, _Failed) as error:
        sys.exit(str(error))
    with answers:
        answers.write(TypeAdapter(Preflight).dump_json(answer))


def _examine(question: Question) -> Preflight:
    device, available, data_bytes = _in_fork(partial(_device, question.device))
    space = spec_from_document(question.study, question.document).space
    found = find_corners(space, data.info(question.data))

    def tried(config: TrialConfig) -> DryRun:
        try:
            return DryRun(**_in_fork(partial(_try, config, question)))
        except _Failed as failure:
            return DryRun(problem=str(failure))

    corners = [
        Corner(
            model=corner.model,
            knobs=corner.knobs,
            batch_size=corner.config.training.batch_size,
            parameters=corner.parameters,
            tried=tried(corner.config),
        )
        for corner in found.corners
    ]
    measured, problem = None, None
    if question.groups:
        try:
            measured = TypeAdapter(Measured).validate_python(_in_fork(partial(_compare, question)))
        except _Failed as failure:
            problem = str(failure)
    gain = None
    if found.corners and found.corners[-1].config.training.precision == "auto":
        with contextlib.suppress(_Failed):
            gain = _in_fork(partial(_gain, found.corners[-1].config, question))
    return Preflight(
        device=device,
        corners=tuple(corners),
        fewest_parameters=found.fewest_parameters,
        most_parameters=found.most_parameters,
        infeasible=found.infeasible,
        trials=tuple(map(tried, question.trials)),
        available_bytes=available,
        data_bytes=data_bytes,
        engine=measured.engine if measured else None,
        engine_gain=measured.gain if measured else 1.0,
        engine_problem=problem,
        bfloat16_gain=gain,
    )


# --- in a fork: only there a device is touched and anything computed ------------------------------------------------


def _device(name: str) -> tuple[str, int | None, int | None]:
    """Where trials are trained, how much memory is free there, and how much a part of the data may have."""
    device = choose_device(name)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    data_bytes = data_memory(device)
    return device.type, free, None if math.isinf(data_bytes) else int(data_bytes)


def _try(config: TrialConfig, question: Question) -> dict[str, Any]:
    return asdict(dry_run(config, question.data, _place(question)))


def _compare(question: Question) -> dict[str, Any]:
    return asdict(measure(question.groups, question.data, _place(question), NoProgress()))


def _gain(config: TrialConfig, question: Question) -> float:
    return bfloat16_gain(config, question.data, _place(question))


def _place(question: Question) -> torch.device:
    """Where to train, with no more memory than there is."""
    device = choose_device(question.device)
    if device.type == "cpu":
        limit_memory()
    return device


def _in_fork(call: Callable[[], Any]) -> Any:
    """What `call` returns in a fork of this process, as JSON has it.

    Raises TunerError as the call does, and _Failed where it raises anything else, dies or takes too long.
    """
    reading, writing = _FORKS.Pipe(duplex=False)
    fork = _FORKS.Process(target=_answer, args=(call, writing))
    fork.start()
    writing.close()
    try:
        if not reading.poll(ANSWER_SECONDS):
            raise _Failed(f"a few steps take longer than {ANSWER_SECONDS:g} s")
        said = json.loads(reading.recv_bytes())
    except EOFError:
        fork.join()
        code = fork.exitcode or 0
        ended = f"was killed by {Signals(-code).name}" if code < 0 else "died"
        raise _Failed(f"its process {ended}") from None
    finally:
        fork.kill()
        fork.join()
        reading.close()
    if "error" in said:
        raise TunerError(said["error"])
    if "failure" in said:
        raise _Failed(said["failure"])
    return said["answer"]


def _answer(call: Callable[[], Any], writing: Connection) -> None:
    try:
        said = {"answer": call()}
    except InfeasibleModel as error:
        said = {"failure": str(error)}
    except TunerError as error:
        said = {"error": str(error)}
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        what = "out of memory" if is_out_of_memory(error) else type(error).__name__
        said = {"failure": f"{what}: {first_line}"}
    writing.send_bytes(json.dumps(said).encode())


if __name__ == "__main__":
    main()
