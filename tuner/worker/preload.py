"""Imported once by the fork server, before the training, so that every child begins like this.

A signal to the terminal's or the job's process group is the supervisor's to handle: it stops the children in order.
"""

from __future__ import annotations

import gc
import signal

gc.disable()  # a seventh of the imports' time; `preloaded` enables it again

for _signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(_signal, signal.SIG_IGN)
