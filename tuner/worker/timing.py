"""Every time a worker lives by, in seconds; lease and heartbeat are settings (`tuner.settings`)."""

from __future__ import annotations

IDLE_SECONDS = 1.0  # idle slots ask again for a trial
TICK_SECONDS = 0.5  # the supervisor looks at its children's progress
SUSPENDED_SECONDS = 10.0  # between two ticks: it was the supervisor that stood still, not its children

REPORT_SECONDS = 0.1  # epochs shorter than this are reported together; in a stack, this times its trials, but
LONGEST_REPORT_SECONDS = 1.0  # at most this: so long a pruner waits for short epochs

DRAIN_SECONDS = 15.0  # on SIGTERM, an epoch that ends within this is finished, the rest given back
EXIT_SECONDS = 5.0  # then, for the database to take what is left to say

SWEEP_SECONDS = 2.0  # at its end, a worker waits for so long for checkpoints to be removed

HANG_SECONDS = 120.0  # a training that makes no step for so long is taken to hang
START_SECONDS = 120.0  # a child process must be ready, and a trial must make its first step, within this
PREPARE_SECONDS = 3600.0  # a data set must be downloaded and prepared within this
