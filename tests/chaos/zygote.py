"""A warm parent from which the suite's processes are forked: 64 workers start in seconds instead of minutes.

Each line of its standard input is an order (JSON): a function of `programs` and its arguments. It answers with the
process id. What it forks is a process of its own session with its own log; its exit code goes to a file beside it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

EXIT_SUFFIX = ".exit"


def main() -> None:
    from tests.chaos import programs  # all that is worth to be imported only once

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets those that end: nobody asks here
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(getattr(programs, order["program"]), order)
        print(pid, flush=True)


def _become(program: Any, order: dict[str, Any]) -> None:
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for path, flags, number in ((os.devnull, os.O_RDONLY, 0), (order["log"], os.O_WRONLY | os.O_APPEND, 1)):
            opened = os.open(path, flags | os.O_CREAT, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        os.dup2(1, 2)
        os.environ.clear()
        os.environ.update(order["environment"])
        code = program(**order["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        unfinished = Path(order["log"] + ".unfinished")
        unfinished.write_text(str(code))
        unfinished.rename(order["log"] + EXIT_SUFFIX)
        os._exit(code)
