"""`tuner worker start` with a training that only sleeps: started by tests that are about everything else."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from tests.chaos.stub import TRAINING
from tuner.errors import TunerError
from tuner.settings import read_settings
from tuner.worker.run import WorkerOptions, run_worker


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("studies", nargs="*")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--children", type=int)
    parser.add_argument("--growing", action="store_true")
    parser.add_argument("--count", type=int)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = WorkerOptions(
        slots=given.slots,
        children=given.children,
        growing=given.growing,
        count=given.count,
        training=TRAINING,
        device="cpu",
    )
    try:
        run_worker(os.environ["TUNER_DATABASE_URL"], read_settings(), given.studies, options)
    except TunerError as error:
        sys.stdout.write(f"tuner: {error}\n")
        sys.exit(error.exit_code)
