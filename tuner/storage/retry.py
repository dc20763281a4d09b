"""The one way to wait for a database, or an object store, that is away: again and again, with growing pauses."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from tuner.errors import DatabaseLost, TunerError

FIRST_SECONDS = 0.1  # the first pause, doubled each time …
CAP_SECONDS = 5.0  # … up to this: below a third of a lease
GIVE_UP_SECONDS = 180.0

log = logging.getLogger("tuner.storage")
Answer = TypeVar("Answer")


def until_answered(
    call: Callable[[], Answer], *, lost: type[TunerError] = DatabaseLost, cap_seconds: float = CAP_SECONDS
) -> Answer:
    """Calls until there is an answer; `call` must be one that may be repeated, for its answer alone may be lost.

    Pauses have jitter, so that many clients do not come back all at once. Raises what says `lost` after
    three minutes, and at once whatever else `call` raises.
    """
    deadline = time.monotonic() + GIVE_UP_SECONDS
    pause = FIRST_SECONDS
    while True:
        try:
            answer = call()
            if pause > FIRST_SECONDS:
                log.info("answered again")
            return answer
        except lost as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s; trying again", error)
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, cap_seconds)
