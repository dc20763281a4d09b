"""Imported once by the fork server, so that every child is forked with torch already there (0.1 s instead of 2.7 s).

The process must stay single-threaded and never touch CUDA. A signal to the terminal's or the job's process group is
the supervisor's to handle: it stops the children in order.
"""

from __future__ import annotations

import signal

import torch

from tuner.training.warm_up import warm_up

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
torch.set_num_threads(1)
warm_up()
