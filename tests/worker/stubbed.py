"""`tuner worker start` with a training that only sleeps: started by tests that are about everything else."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from tests.chaos.stub import TRAINING
from tuner.errors import TunerError
from tuner.settings import read_settings
from tuner.worker.run import WorkerOptions, run_worker


def main(arguments: Sequence[str]) -> None:
    """The names of studies, the last argument the number of slots."""
    *studies, slots = arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run_worker(
            os.environ["TUNER_DATABASE_URL"],
            read_settings(),
            studies,
            WorkerOptions(slots=int(slots), training=TRAINING, device="cpu"),
        )
    except TunerError as error:
        sys.stdout.write(f"tuner: {error}\n")
        sys.exit(error.exit_code)
