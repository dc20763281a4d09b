"""The whole of a worker's life, from its registration to its end."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from tuner import __version__
from tuner.settings import Settings
from tuner.storage import workers
from tuner.storage.artifacts import open_store
from tuner.storage.connection import Database
from tuner.storage.object_store import ObjectStore
from tuner.storage.retry import until_answered
from tuner.storage.studies import check_version, get_study
from tuner.storage.url import CREDENTIALS, with_password
from tuner.worker.artifact_thread import ArtifactThread
from tuner.worker.children import TRAINING, Child, prepare_fork_server
from tuner.worker.events import Terminate
from tuner.worker.lifetime import Ended, Lifetime
from tuner.worker.loop import EventLoop
from tuner.worker.pool import Pool
from tuner.worker.storage_thread import StorageThread
from tuner.worker.supervisor import Supervisor
from tuner.worker.sweeper import Sweeper
from tuner.worker.timing import HANG_SECONDS


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    slots: int
    children: int | None = None  # processes that the slots share, a GPU's trials all in one; None: one for each slot
    training: str = TRAINING  # what its children do: the name of a child.Training, "package.module:Name"
    growing: bool = False  # each child gets more slots as long as it gets more done with them
    device: str = "auto"  # auto, cpu or cuda
    hang_seconds: float = HANG_SECONDS
    count: int | None = None  # trials to begin; None: as many as there are
    time_limit: float | None = None  # seconds after which running trials are given back
    stop_with_stdin: bool = False  # end as soon as standard input does: the launcher that held it is gone


def run_worker(database_url: str, settings: Settings, studies: Sequence[str], options: WorkerOptions) -> Ended:
    """Serves the named studies in their order, or all that run, until they end or a signal comes.

    Raises NotFound, DatabaseError, ArtifactError or DataError where it cannot go on.
    """
    db = Database(_without_environment(database_url), application="tuner worker")
    serve = [until_answered(partial(get_study, db, name)) for name in studies] or None
    for study in serve or ():
        check_version(study)
    store = open_store(settings)
    store.check_writable()
    prepare_fork_server(options.training)
    worker_id = uuid4()
    register = partial(
        workers.register,
        db,
        worker_id,
        host=platform.node(),
        pid=os.getpid(),
        device=options.device,
        slots=options.slots,
        version=__version__,
        lease_seconds=settings.lease_seconds,
        studies=[study.study_id for study in serve] if serve else None,
    )
    until_answered(register)
    loop = EventLoop()
    loop.catch_signals()
    if options.stop_with_stdin:
        threading.Thread(target=_watch_stdin, args=(loop,), daemon=True).start()
    make_storage = partial(
        StorageThread, db, worker_id, serve, heartbeat_seconds=settings.heartbeat_seconds, register=register
    )
    sweeper = None
    storage: StorageThread | ArtifactThread
    if isinstance(store, ObjectStore):
        storage = ArtifactThread(store, make_storage, loop.answer)
    else:
        sweeper = Sweeper(store.sweep)
        sweeper.start()
        storage = make_storage(sweep=sweeper.post, answer=loop.answer)
    storage.start()
    pool = Pool(
        lambda index: Child(options.training, options.device, index, options.hang_seconds),
        store.root,
        slots=min(options.slots, options.count or options.slots),
        children=options.children,
        growing=options.growing and options.count is None,
    )
    try:
        return Supervisor(storage, loop, pool, Lifetime(options.count, options.time_limit)).run()
    finally:
        if sweeper is not None:
            sweeper.finish()


def _without_environment(url: str) -> str:
    """The URL with the password that the environment holds, which is removed there: children inherit it."""
    complete = with_password(url, os.environ)
    for name in CREDENTIALS:
        os.environ.pop(name, None)
    return complete


def _watch_stdin(loop: EventLoop) -> None:
    while os.read(0, 4096):  # sys.stdin would hold a lock when the interpreter ends
        pass
    loop.answer(Terminate())
