"""Imported once by the fork server, after the training: what was imported is no garbage, and children need not look."""

from __future__ import annotations

import gc

gc.freeze()  # besides, looking would copy the pages that children share
gc.enable()
