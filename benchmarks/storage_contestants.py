"""The contestants of benchmarks/storage.py: ways to keep a study in PostgreSQL, behind one interface."""

from __future__ import annotations

import multiprocessing
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution, distribution_to_json

from tuner.search import SAMPLERS
from tuner.search.distributions import distribution
from tuner.spec.space import Point
from tuner.spec.study import StudySpec, read_spec
from tuner.states import Outcome
from tuner.storage import PostgresStorage, workers
from tuner.storage.connection import Database
from tuner.storage.steering import launch_study
from tuner.storage.studies import get_study
from tuner.worker.desk import StudyDesk
from tuner.worker.events import Assigned

SPEC = Path(__file__).with_name("storage.yaml")
SERVER_READY_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the study is."""

    url: str
    grpc_port: int | None = None


class Session(Protocol):
    """One process's way to a study. What a contestant does in one go is part of the first of these calls."""

    storage_seconds: float  # spent in the storage and on its answers, not in the sampler's arithmetic

    def ask(self) -> Any: ...
    def suggest(self, trial: Any) -> None: ...
    def report(self, trial: Any, epoch: int) -> None: ...
    def should_prune(self, trial: Any) -> None: ...
    def tell(self, trial: Any) -> None: ...


def spec(name: str) -> StudySpec:
    return read_spec(SPEC, name=name)


def curve(epoch: int) -> float:
    """The same for all trials: the pruner computes and never prunes, so that all contestants do equal work."""
    return 1 - 1 / (1 + epoch)


class OptunaSession:
    def __init__(self, storage: optuna.storages.BaseStorage, study: str) -> None:
        self.storage_seconds = 0.0
        self._parameters = {knob.name: distribution(knob) for knob in spec(study).space.parameters}
        self._study = optuna.load_study(
            study_name=study,
            storage=storage,
            sampler=optuna.samplers.TPESampler(seed=uuid4().int % 2**31),
            pruner=optuna.pruners.MedianPruner(),
        )
        self._clock(self._study._storage)

    def _clock(self, storage: optuna.storages.BaseStorage) -> None:
        """Adds up the time of all calls of the storage; those that it makes itself are part of them."""
        inside = False

        def clocked(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                nonlocal inside
                if inside:
                    return call(*arguments, **options)
                inside, start = True, time.perf_counter()
                try:
                    return call(*arguments, **options)
                finally:
                    inside = False
                    self.storage_seconds += time.perf_counter() - start

            return wrapper

        for name in dir(optuna.storages.BaseStorage):
            if not name.startswith("_"):
                setattr(storage, name, clocked(getattr(storage, name)))

    def ask(self) -> optuna.Trial:
        return self._study.ask()

    def suggest(self, trial: optuna.Trial) -> None:
        for name, kind in self._parameters.items():
            if isinstance(kind, CategoricalDistribution):
                trial.suggest_categorical(name, kind.choices)
            elif isinstance(kind, IntDistribution):
                trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
            else:
                trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)

    def report(self, trial: optuna.Trial, epoch: int) -> None:
        trial.report(curve(epoch), epoch)

    def should_prune(self, trial: optuna.Trial) -> None:
        trial.should_prune()

    def tell(self, trial: optuna.Trial) -> None:
        self._study.tell(trial, trial.number % 7)


class ClockedSampler:
    def __init__(self, propose: Callable[..., Point]) -> None:
        self.seconds = 0.0
        self._propose = propose

    def __call__(self, *arguments: Any) -> Point:
        start = time.perf_counter()
        point = self._propose(*arguments)
        self.seconds += time.perf_counter() - start
        return point


_propose = ClockedSampler(SAMPLERS["tpe"])
SAMPLERS["tpe"] = _propose


class DeskSession:
    """tuner's workers: a claim brings the point, a report the pruner's decision; the next point is proposed ahead."""

    def __init__(self, place: Place, study: str) -> None:
        self._claiming = 0.0  # seconds, proposals included
        self._db = Database(place.url)
        self._desk = StudyDesk(get_study(self._db, study), sweep=_no_files)
        self._worker: UUID = uuid4()
        workers.register(self._db, self._worker, host="benchmark", pid=1, device="cpu", slots=1, version="")

    @property
    def storage_seconds(self) -> float:
        return self._claiming - _propose.seconds

    def ask(self) -> Assigned:
        start = time.perf_counter()
        claimed = self._desk.claim(self._db, self._worker, uuid4())
        self._claiming += time.perf_counter() - start
        assert isinstance(claimed, Assigned)
        return claimed

    def suggest(self, trial: Assigned) -> None:
        if not self._desk.crowded:
            start = time.perf_counter()
            self._desk.look_ahead(self._db, trial.claim.held.number)
            self._claiming += time.perf_counter() - start

    def report(self, trial: Assigned, epoch: int) -> None:
        self._desk.report(self._db, trial.claim.held, {epoch: curve(epoch)}, None)

    def should_prune(self, trial: Assigned) -> None:
        pass

    def tell(self, trial: Assigned) -> None:
        self._desk.tell(self._db, trial.claim.held, Outcome.COMPLETE, None, {})


def _no_files(checkpoint: str) -> None:
    """Nothing was trained, so there is nothing to sweep."""


def _rdb(place: Place, study: str) -> Session:
    return OptunaSession(optuna.storages.get_storage(place.url), study)


def _grpc(place: Place, study: str) -> Session:
    assert place.grpc_port is not None
    with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
        return OptunaSession(optuna.storages.GrpcStorageProxy(port=place.grpc_port), study)


def _postgres(place: Place, study: str) -> Session:
    return OptunaSession(PostgresStorage(place.url), study)


RDB, GRPC, POSTGRES, WORKER = "RDBStorage", "RDBStorage, gRPC proxy", "PostgresStorage", "tuner's worker"

CONTESTANTS: dict[str, Callable[[Place, str], Session]] = {
    RDB: _rdb,
    GRPC: _grpc,
    POSTGRES: _postgres,
    WORKER: DeskSession,
}


@contextmanager
def opened(contestant: str, url: str) -> Iterator[Place]:
    """What a contestant needs beside the database: a proxy server of its own, fresh."""
    if contestant != GRPC:
        yield Place(url=url)
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(url, port), daemon=True)
    server.start()
    try:
        with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
            optuna.storages.GrpcStorageProxy(port=port).wait_server_ready(SERVER_READY_SECONDS)
        yield Place(url=url, grpc_port=port)
    finally:
        server.terminate()
        server.join()


def _serve(url: str, port: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
        optuna.storages.run_grpc_proxy_server(optuna.storages.get_storage(url), port=port)


def make_study(url: str, contestant: str, trials: int) -> str:
    """A new study with so many complete trials, of 20 epochs each; gives its name."""
    name = f"storage-{uuid4().hex[:8]}"
    made = spec(name)
    with Database(url) as db:
        if contestant == WORKER:
            study = launch_study(db, made, {})[0].study_id
        else:
            study = PostgresStorage(url).create_new_study([optuna.study.StudyDirection.MAXIMIZE], name)
        kinds = [distribution(knob) for knob in made.space.parameters]
        db.execute(
            _FILL,
            study=study,
            trials=trials,
            epochs=made.epochs,
            names=[knob.name for knob in made.space.parameters],
            lows=[0.0 if isinstance(kind, CategoricalDistribution) else float(kind.low) for kind in kinds],
            whole=[not isinstance(kind, optuna.distributions.FloatDistribution) for kind in kinds],
            distributions=[distribution_to_json(kind) for kind in kinds],
        )
        db.execute("ANALYZE")
    return name


_FILL = """
INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
    SELECT number, %(study)s, 'COMPLETE', now(), now() FROM generate_series(0, %(trials)s - 1) AS number;
INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT trial_id, 0, number %% 7, 'FINITE' FROM trials WHERE study_id = %(study)s;
INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
    SELECT trial_id, epoch, 1 - 1 / (1 + epoch::float8), 'FINITE'
    FROM trials, generate_series(1, %(epochs)s) AS epoch WHERE study_id = %(study)s ORDER BY trial_id, epoch;
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT trial_id, name, CASE WHEN whole THEN low + number %% 3 ELSE low + 0.001 * random() END, distribution
    FROM trials, unnest(%(names)s::text[], %(lows)s::float8[], %(whole)s::bool[], %(distributions)s::text[])
        AS knob (name, low, whole, distribution) WHERE study_id = %(study)s ORDER BY trial_id;
INSERT INTO tuner.lease (trial_id, study_id, number, outcome, finish_seq, epoch)
    SELECT trial_id, study_id, number, 'complete', number + 1, %(epochs)s
    FROM trials JOIN tuner.study USING (study_id) WHERE study_id = %(study)s;
UPDATE tuner.study SET last_finish_seq = %(trials)s WHERE study_id = %(study)s"""
