"""Where a child process begins. Apart from `child`, so that a supervisor does not import torch to name it."""

from __future__ import annotations

import socket

from tuner.worker.progress import SharedProgress


def start(sock: socket.socket, progress: SharedProgress, device: str, slot: int) -> None:
    from tuner.worker.child import main

    main(sock, progress, device, slot)
