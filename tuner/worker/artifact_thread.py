"""The one thread that talks to an object store: it stands between a supervisor and its storage thread.

Epochs pass at once, so that pruning and the live table do not wait for the network; a checkpoint's pointer follows when
the file has been uploaded, and everything else keeps its place in the line: the end of a trial behind its last
checkpoint, a claim behind the ends before it. A claimed trial is handed on once its checkpoint is here.

Leases are renewed meanwhile (by the storage thread), training goes on, and of the checkpoints of a trial that queue up
only the newest is uploaded. What fails is tried again as the database is; a store that stays away ends the worker with
ArtifactError, which gives its trials back and counts no death.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from tuner.errors import ArtifactError
from tuner.storage.artifacts import ArtifactFolder, TrialArtifacts
from tuner.storage.claims import Held
from tuner.storage.object_store import ObjectStore
from tuner.storage.retry import until_answered
from tuner.worker.events import Claimed, StorageAnswer, StorageFailed
from tuner.worker.requests import ClaimNext, Close, GiveBack, Report, Request, Tell
from tuner.worker.storage_thread import StorageThread


class MakeStorage(Protocol):
    def __call__(self, *, sweep: Callable[[str], None], answer: Callable[[StorageAnswer], None]) -> StorageThread: ...


@dataclass
class _Attempt:
    """A trial that a slot trains, and its files in the scratch folder."""

    slot: int
    files: TrialArtifacts
    log: Path
    log_bytes: int = 0  # uploaded


@dataclass(frozen=True)
class _Upload:
    """The newest checkpoint of an attempt."""

    held: Held


@dataclass(frozen=True)
class _Sweep:
    checkpoint: str


class ArtifactThread(threading.Thread):
    """Takes a storage thread's place before its supervisor; `answer` is called with every event."""

    def __init__(self, store: ObjectStore, storage: MakeStorage, answer: Callable[[StorageAnswer], None]) -> None:
        super().__init__(name="artifacts", daemon=True)
        self._store = store
        self._scratch = ArtifactFolder(store.root)
        self._answer = answer
        self._line: queue.SimpleQueue[Request | Claimed | _Upload | _Sweep] = queue.SimpleQueue()
        self._newest: dict[Held, str] = {}  # checkpoints to upload
        self._attempts: dict[Held, _Attempt] = {}
        self._close: Close | None = None
        self._storage = storage(sweep=lambda checkpoint: self._line.put(_Sweep(checkpoint)), answer=self._hear)

    def start(self) -> None:
        self._storage.start()
        super().start()

    def post(self, request: Request) -> None:
        """Called by the supervisor; returns at once."""
        match request:
            case Report(held=held, checkpoint=checkpoint):
                self._storage.post(replace(request, checkpoint=None))
                if checkpoint is not None:
                    self._newest[held] = checkpoint
                    self._line.put(_Upload(held))
                return
            case Close():
                self._close = request
        self._line.put(request)

    def join(self, timeout: float | None = None) -> None:
        """Waits for what is in the line, half of the time at most, then for the storage thread."""
        deadline = None if timeout is None else time.monotonic() + timeout
        super().join(None if timeout is None else timeout / 2)
        if self._close is not None:
            self._storage.post(self._close)  # the line may not have come to it; a second one does no harm
        self._storage.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def run(self) -> None:
        try:
            while True:
                item = self._line.get()
                self._handle(item)
                if isinstance(item, Close):
                    return
        except Exception as error:  # nothing can be uploaded any more: the supervisor must know
            self._answer(StorageFailed(error=error))

    def _hear(self, event: StorageAnswer) -> None:
        """Called by the storage thread."""
        if isinstance(event, Claimed):
            self._line.put(event)
        else:
            self._answer(event)

    def _handle(self, item: Request | Claimed | _Upload | _Sweep) -> None:
        match item:
            case _Upload(held=held):
                self._upload(held)
            case _Sweep(checkpoint=checkpoint):
                self._store.sweep(checkpoint)
            case Claimed():
                self._begin(item)
            case Tell(held=held) | GiveBack(held=held):
                self._upload_log(held)
                self._storage.post(item)
            case ClaimNext(slot=slot, beside=beside):
                self._storage.post(item)
                self._clear({held for held, attempt in self._attempts.items() if attempt.slot == slot} - {*beside})
            case Close():
                self._storage.post(item)
                self._clear(set(self._attempts))
            case _:
                self._storage.post(item)

    def _begin(self, claimed: Claimed) -> None:
        for claim in (trial.claim for trial in claimed.trials):
            if claim.checkpoint is not None:
                # One that is missing costs the epochs behind it, as one that is damaged does: training starts anew.
                self._patiently(partial(self._store.local, claim.checkpoint))
            held = claim.held
            files = TrialArtifacts(root=self._store.root, study=claimed.study_folder, trial_id=held.trial_id)
            self._attempts[held] = _Attempt(slot=claimed.slot, files=files, log=files.log(held.attempt))
        self._answer(claimed)

    def _upload(self, held: Held) -> None:
        checkpoint = self._newest.pop(held, None)
        if checkpoint is None:
            return  # it went with an earlier one's turn
        self._patiently(partial(self._store.push, checkpoint))
        self._upload_log(held)
        self._storage.post(Report(held=held, curve={}, checkpoint=checkpoint))
        self._scratch.sweep(checkpoint)

    def _upload_log(self, held: Held) -> None:
        """As far as it goes; no other attempt writes this object."""
        attempt = self._attempts.get(held)
        if attempt is not None and attempt.log.exists():
            size = attempt.log.stat().st_size
            if size != attempt.log_bytes:
                self._patiently(partial(self._store.push, attempt.files.relative(attempt.log)))
                attempt.log_bytes = size

    def _clear(self, ended: Set[Held]) -> None:
        """Removes what trials left in the scratch folder; one that was pruned wrote to its log since."""
        for held in ended:
            self._upload_log(held)
            attempt = self._attempts.pop(held)
            if not any(other.trial_id == held.trial_id for other in self._attempts):
                shutil.rmtree(attempt.files.folder, ignore_errors=True)

    def _patiently(self, call: Callable[[], object]) -> None:
        until_answered(call, lost=ArtifactError)
