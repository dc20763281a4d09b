"""What the suite's processes do; each returns its exit code. Imported once, by the zygote."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Sequence
from uuid import UUID, uuid4

from alembic import command  # noqa: F401  imported late elsewhere: once for all that are forked

from tests.storage.rows import claim_one
from tuner.errors import TunerError
from tuner.settings import read_settings
from tuner.states import Outcome
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Ending
from tuner.storage.connection import Database
from tuner.storage.optuna_tables import create_optuna_tables  # noqa: F401  likewise
from tuner.storage.schema import ensure_schema
from tuner.worker.lifetime import Ended
from tuner.worker.run import WorkerOptions, run_worker

INTERRUPTED = 130


def worker(url: str, studies: Sequence[str], slots: int, training: str, limits: dict[str, int]) -> int:
    """`tuner worker start`, with a training of one's own. `limits`: of the system, by their names (RLIMIT_AS)."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s")
    try:
        ended = run_worker(url, read_settings(), studies, WorkerOptions(slots=slots, training=training, device="cpu"))
    except TunerError as error:
        print(f"tuner: {error}")
        return error.exit_code
    return INTERRUPTED if ended is Ended.TERMINATED else 0


def claimer(url: str, study: int, start_at: float) -> int:
    """Claims trials as fast as it can, and ends each at once, until the budget is spent."""
    me: UUID = uuid4()
    with Database(url, application="claimer") as db:
        workers.register(db, me, host="here", pid=0, device="cpu", slots=1, version="0")
        _wait(start_at)
        while isinstance(claim := claim_one(db, study, me), Claim):
            print(claim.held.number)
            claims.tell(db, claim.held, Ending(outcome=Outcome.COMPLETE, value=0.0))
    return 0


def migrator(url: str, start_at: float) -> int:
    """What a first launch does to an empty database."""
    _wait(start_at)
    ensure_schema(url)
    return 0


def burner() -> int:
    """Keeps a core busy until it is killed."""
    while True:
        sum(range(100_000))


def _wait(until: float) -> None:
    time.sleep(max(0.0, until - time.time()))
