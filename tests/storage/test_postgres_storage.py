from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState, create_trial

from tests.storage.proxy import CountingProxy, Cut
from tests.storage.rows import claim_one
from tuner.errors import DatabaseError, InvalidInput
from tuner.states import Outcome
from tuner.storage import PostgresStorage, claims, workers
from tuner.storage.claims import Claim, Ending, Progress
from tuner.storage.connection import Database
from tuner.storage.postgres_storage.storage import WRITE_BEHIND_SECONDS

MAXIMIZE = [StudyDirection.MAXIMIZE]
UNIT = FloatDistribution(0.0, 1.0)


class TestOptunasOwn(StorageTestCase):
    """All that Optuna asks of a storage; none is left out."""

    @pytest.fixture
    def storage(self, database_url: str) -> PostgresStorage:
        return PostgresStorage(database_url)


@pytest.fixture
def storage(database_url: str) -> PostgresStorage:
    return PostgresStorage(database_url)


@pytest.fixture
def other(database_url: str) -> PostgresStorage:
    """Another process's."""
    return PostgresStorage(database_url)


@pytest.fixture
def study_id(storage: PostgresStorage) -> int:
    return storage.create_new_study(MAXIMIZE, "digits")


@pytest.fixture
def proxy(database_url: str) -> Iterator[CountingProxy]:
    with CountingProxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def mine(proxy: CountingProxy, study_id: int) -> Iterator[PostgresStorage]:
    """A storage that reaches the database through the proxy."""
    storage = PostgresStorage(proxy.url)
    yield storage
    storage.remove_session()  # what waits to be written would wait for a proxy that is gone


def study_in(storage: PostgresStorage, **parts: Any) -> optuna.Study:
    sampler = optuna.samplers.TPESampler(seed=0)
    return optuna.load_study(study_name="digits", storage=storage, **{"sampler": sampler, **parts})


def fill(db: Database, study_id: int, count: int) -> None:
    """Complete trials of three epochs and two parameters."""
    db.execute(
        """
        INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
            SELECT number, %(study)s, 'COMPLETE', now(), now() FROM generate_series(0, %(count)s - 1) AS number;
        INSERT INTO trial_values (trial_id, objective, value, value_type)
            SELECT trial_id, 0, random(), 'FINITE' FROM trials WHERE study_id = %(study)s;
        INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
            SELECT trial_id, step, random(), 'FINITE' FROM trials, generate_series(1, 3) AS step
            WHERE study_id = %(study)s;
        INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
            SELECT trial_id, name, random(), %(distribution)s FROM trials, unnest(ARRAY['x', 'y']) AS name
            WHERE study_id = %(study)s""",
        study=study_id,
        count=count,
        distribution=optuna.distributions.distribution_to_json(UNIT),
    )


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [0, 1000])
def test_messages_of_a_trial(
    db: Database, mine: PostgresStorage, study_id: int, proxy: CountingProxy, trials: int
) -> None:
    fill(db, study_id, trials)
    study = study_in(mine, pruner=optuna.pruners.MedianPruner(n_startup_trials=0))
    study.ask()  # reads what there is

    def messages(call: Callable[..., Any], *arguments: Any) -> int:
        before = proxy.queries
        call(*arguments)
        return proxy.queries - before

    for _ in range(2):
        before = proxy.queries
        trial = study.ask()
        assert proxy.queries - before == 2
        assert messages(trial.suggest_float, "x", 0, 1) == 0
        assert messages(trial.suggest_float, "y", 0, 1) == 0
        for epoch in (1, 2):
            assert messages(trial.report, 0.5, epoch) == 1
            assert messages(trial.should_prune) == 1
        assert messages(study.tell, trial, 0.5) == 1


def test_one_connection_for_many_threads(db: Database, storage: PostgresStorage, study_id: int) -> None:
    def look(_: int) -> int:
        storage.create_new_trial(study_id)
        return len(storage.get_all_trials(study_id))

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(look, range(40))) == 40
    (row,) = db.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'tuner storage' AND datname = current_database()"
    )
    assert row.count == 1


# --- several storages over one database ------------------------------------------------------------------------------


def test_what_others_write_is_seen(storage: PostgresStorage, other: PostgresStorage, study_id: int) -> None:
    (first, second) = (other.create_new_trial(study_id) for _ in range(2))
    assert [trial.state for trial in storage.get_all_trials(study_id)] == [TrialState.RUNNING] * 2
    other.set_trial_param(second, "x", 0.5, UNIT)
    other.set_trial_intermediate_value(second, 1, 0.25)
    assert storage.get_all_trials(study_id)[1].intermediate_values == {1: 0.25}
    other.set_trial_state_values(second, TrialState.COMPLETE, [0.75])
    # Those that ended are read although one before them still runs, and that one is not forgotten.
    assert [trial.value for trial in storage.get_all_trials(study_id, states=(TrialState.COMPLETE,))] == [0.75]
    other.set_trial_state_values(first, TrialState.FAIL)
    assert storage.get_all_trials(study_id) == other.get_all_trials(study_id)
    assert storage.get_trial(second).params == {"x": 0.5}


def test_optunas_own_storage_reads_the_same(database_url: str, storage: PostgresStorage, study_id: int) -> None:
    study = study_in(storage)
    study.set_user_attr("data", {"name": "digits", "sizes": [1, 2]})

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 1e-3, 1, log=True)
        trial.suggest_int("units", 8, 64)
        trial.suggest_categorical("optimizer", ["adamw", None, 0.5])
        trial.set_user_attr("rate", float("inf"))
        for step, value in enumerate((0.5, float("nan"), float("-inf"))):
            trial.report(value, step)
        trial.set_constraint("memory", -1.0)
        if trial.number == 1:
            raise optuna.TrialPruned
        return 0.5

    study.optimize(objective, n_trials=3)
    theirs = optuna.load_study(study_name="digits", storage=database_url)
    assert repr(theirs.trials) == repr(study.trials)  # nan is not equal to itself
    assert theirs.user_attrs == study.user_attrs
    assert repr(PostgresStorage(database_url).get_all_trials(study_id)) == repr(study.trials)


def test_parameters_come_before_the_first_report(
    storage: PostgresStorage, other: PostgresStorage, study_id: int
) -> None:
    """The dashboard shows them during a long first epoch, other processes' TPE takes them into account."""
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_param(trial_id, "x", 0.5, UNIT)
    storage.set_trial_system_attr(trial_id, "tpe:relative_params:0", '{"x": 0.5}')
    until(lambda: other.get_all_trials(study_id)[0].params == {"x": 0.5}, WRITE_BEHIND_SECONDS + 10)
    assert other.get_trial(trial_id).system_attrs == {"tpe:relative_params:0": '{"x": 0.5}'}


def test_an_attribute_is_what_it_was_when_it_was_set(
    database_url: str, storage: PostgresStorage, study_id: int
) -> None:
    study = study_in(storage)
    trial = study.ask()
    losses = [0.5]
    trial.set_user_attr("losses", losses)
    losses.append(0.25)
    study.tell(trial, 0.5)
    assert storage.get_all_trials(study_id)[0].user_attrs == {"losses": [0.5]}
    assert PostgresStorage(database_url).get_all_trials(study_id) == storage.get_all_trials(study_id)


def test_parameters_outlive_a_process_that_ends_at_once(
    database_url: str, storage: PostgresStorage, study_id: int
) -> None:
    """As `optuna ask` does: another process trains and tells."""
    script = (
        "import sys, optuna; from tuner.storage import PostgresStorage\n"
        "study = optuna.load_study(study_name='digits', storage=PostgresStorage(sys.argv[1]))\n"
        "study.ask().suggest_float('x', 0, 1)"
    )
    subprocess.run([sys.executable, "-c", script, database_url], check=True)
    (trial,) = storage.get_all_trials(study_id)
    assert set(trial.params) == {"x"}
    study_in(storage).tell(trial.number, 0.5)
    assert storage.get_trial(trial._trial_id).value == 0.5


def test_a_trial_that_somebody_else_ended(storage: PostgresStorage, other: PostgresStorage, study_id: int) -> None:
    trial_id = storage.create_new_trial(study_id)
    other.set_trial_intermediate_value(trial_id, 1, 0.25)
    other.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.75])
    for write in (
        lambda: storage.set_trial_intermediate_value(trial_id, 2, 0.5),
        lambda: storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.75]),
        lambda: storage.set_trial_param(trial_id, "x", 0.5, UNIT),
    ):
        with pytest.raises(UpdateFinishedTrialError):
            write()
    (trial,) = storage.get_all_trials(study_id)
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 0.75, {1: 0.25})


@pytest.mark.parametrize("looked", [False, True])
def test_parameters_of_a_trial_that_somebody_else_ended_at_once(
    storage: PostgresStorage, other: PostgresStorage, study_id: int, looked: bool
) -> None:
    """One process proposes points, another evaluates them, faster than parameters are written."""
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_param(trial_id, "x", 0.5, UNIT)
    storage.set_trial_user_attr(trial_id, "note", "proposed")
    other.set_trial_user_attr(trial_id, "note", "evaluated")
    other.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.75])
    if looked:
        assert storage.get_all_trials(study_id)[0].state is TrialState.COMPLETE
    until(lambda: other.get_trial(trial_id).params == {"x": 0.5}, WRITE_BEHIND_SECONDS + 10)
    (trial,) = storage.get_all_trials(study_id)
    assert (trial.state, trial.value, trial.params) == (TrialState.COMPLETE, 0.75, {"x": 0.5})
    assert trial.user_attrs == {"note": "evaluated"}


def test_parameters_of_a_trial_that_two_told(storage: PostgresStorage, other: PostgresStorage, study_id: int) -> None:
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_param(trial_id, "x", 0.5, UNIT)
    other.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.75])
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.25])
    trial = other.get_trial(trial_id)
    assert (trial.value, trial.params) == (0.75, {"x": 0.5})


def test_a_pickled_trial_has_its_parameters(storage: PostgresStorage, other: PostgresStorage, study_id: int) -> None:
    trial = study_in(storage).ask()
    trial.suggest_float("x", 0, 1)
    sent = pickle.loads(pickle.dumps(trial))
    assert set(other.get_trial(trial._trial_id).params) == {"x"}
    assert sent.params == trial.params


def test_the_end_of_an_own_trial_is_seen_without_writing_it(
    storage: PostgresStorage, other: PostgresStorage, study_id: int
) -> None:
    trial_id = storage.create_new_trial(study_id)
    other.set_trial_state_values(trial_id, TrialState.FAIL)
    assert storage.get_all_trials(study_id)[0].state == TrialState.FAIL


def test_numbers_have_neither_gaps_nor_doubles(database_url: str, storage: PostgresStorage, study_id: int) -> None:
    def ask(_: int) -> list[int]:
        mine = PostgresStorage(database_url)
        return [mine.get_trial_number_from_id(mine.create_new_trial(study_id)) for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for asked in pool.map(ask, range(8)) for number in asked]
    assert sorted(numbers) == list(range(80))
    trials = storage.get_all_trials(study_id)
    assert [trial.number for trial in trials] == list(range(80))
    assert sorted(trial._trial_id for trial in trials) == [trial._trial_id for trial in trials]


def test_an_enqueued_trial_is_taken_once(database_url: str, storage: PostgresStorage, study_id: int) -> None:
    study = study_in(storage)
    for number in range(10):
        study.enqueue_trial({"x": number / 10})

    def take(_: int) -> list[float]:
        mine = study_in(PostgresStorage(database_url))
        return [trial.suggest_float("x", 0, 1) for trial in (mine.ask() for _ in range(3)) if trial.number < 10]

    with ThreadPoolExecutor(5) as pool:
        values = [value for taken in pool.map(take, range(5)) for value in taken]
    assert sorted(values) == [number / 10 for number in range(10)]


def test_a_new_trial_looks_for_what_was_enqueued_meanwhile(
    storage: PostgresStorage, other: PostgresStorage, study_id: int
) -> None:
    study = study_in(storage)
    study.ask()
    study_in(other).enqueue_trial({"x": 0.5})
    assert study.ask().suggest_float("x", 0, 1) == 0.5


def test_an_objective_that_looks_at_the_study_sees_what_is_new(
    storage: PostgresStorage, other: PostgresStorage, study_id: int
) -> None:
    study = study_in(storage)
    study.ask().suggest_float("x", 0, 1)
    other.create_new_trial(study_id, create_trial(value=0.5))
    assert len(study.get_trials(deepcopy=False)) == 2
    assert study.best_value == 0.5


def test_an_added_trial_bears_no_mark(db: Database, storage: PostgresStorage, study_id: int) -> None:
    """Optuna's own storage and the dashboard would show it."""
    for state in (TrialState.COMPLETE, TrialState.FAIL):
        value = 0.5 if state is TrialState.COMPLETE else None
        storage.create_new_trial(study_id, create_trial(state=state, value=value, system_attrs={"note": 1}))
    study = study_in(storage)
    study.enqueue_trial({"x": 0.5})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    keys = {row.key for row in db.execute("SELECT key FROM trial_system_attributes")}
    assert keys == {"note", "fixed_params"}


def test_pruners_that_keep_notes(database_url: str, storage: PostgresStorage, study_id: int) -> None:
    def objective(trial: optuna.Trial) -> float:
        quality = trial.suggest_float("x", 0, 1)
        for step in range(1, 9):
            trial.report(quality * step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return quality

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study_in(storage, pruner=pruner).optimize(objective, n_trials=20)
    stored = PostgresStorage(database_url).get_all_trials(study_id)
    assert {trial.state for trial in stored} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(any(key.startswith("completed_rung") for key in trial.system_attrs) for trial in stored)


def test_a_forked_process_has_a_connection_of_its_own(storage: PostgresStorage, study_id: int) -> None:
    trial_id = storage.create_new_trial(study_id)

    def train() -> None:
        storage.set_trial_intermediate_value(trial_id, 1, 0.25)
        storage.set_trial_state_values(storage.create_new_trial(study_id), TrialState.COMPLETE, [0.5])

    children = [multiprocessing.get_context("fork").Process(target=train) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.75])
    assert sorted(trial.value or 0 for trial in storage.get_all_trials(study_id)) == [0.5, 0.5, 0.5, 0.75]


def test_a_deleted_study_leaves_nothing(
    db: Database, storage: PostgresStorage, other: PostgresStorage, study_id: int
) -> None:
    study = study_in(storage)
    study.set_user_attr("note", "x")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    trial_id = storage.create_new_trial(study_id)
    assert len(other.get_all_trials(study_id)) == 4
    other.delete_study(study_id)
    for call in (
        lambda: storage.get_all_trials(study_id),
        lambda: storage.create_new_trial(study_id),
        lambda: storage.set_trial_intermediate_value(trial_id, 1, 0.5),
    ):
        with pytest.raises(KeyError):
            call()
    for table in db.execute("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'"):
        if table.name not in ("alembic_version", "version_info"):
            assert db.execute(f"SELECT * FROM {table.name}") == []


# --- lost connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", Cut)
@pytest.mark.parametrize("operation", ["create", "add", "start", "report", "tell", "study", "delete"])
def test_nothing_is_done_twice(
    db: Database,
    storage: PostgresStorage,
    mine: PostgresStorage,
    study_id: int,
    proxy: CountingProxy,
    cut: Cut,
    operation: str,
) -> None:
    """The connection breaks before a query arrives, or when it is done and its answer is on the way."""
    study = study_in(mine)
    study.enqueue_trial({"x": 0.5})
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    match operation:
        case "create":
            before, call = 1, lambda: mine.create_new_trial(study_id)
        case "add":
            complete = create_trial(value=0.5, params={"x": 0.5}, distributions={"x": UNIT})
            before, call = 1, lambda: mine.create_new_trial(study_id, complete)
        case "start":
            waiting = storage.create_new_trial(study_id, create_trial(state=TrialState.WAITING))
            before, call = 2, lambda: mine.set_trial_state_values(waiting, TrialState.RUNNING)
        case "report":
            before, call = 1, lambda: trial.report(0.5, 1)
        case "tell":
            before, call = 1, lambda: study.tell(trial, 0.75)
        case "study":
            before, call = 1, lambda: mine.create_new_study(MAXIMIZE, "second")
        case "delete":
            before, call = 1, lambda: mine.delete_study(study_id)
    proxy.cut = cut
    answer = call()
    assert proxy.cut is None, "the connection was not cut"
    if operation == "delete":
        assert storage.get_all_studies() == []
        return
    mine.remove_session()  # writes what has waited
    after = before + (operation in ("create", "add"))
    trials = storage.get_all_trials(study_id)
    assert [trial.number for trial in trials] == list(range(after))
    assert trials == mine.get_all_trials(study_id)
    if operation == "start":
        assert answer is True
        assert trials[-1].state is TrialState.RUNNING
    if operation in ("report", "tell"):
        assert trials[0].params == {"x": 0.5}
    if operation == "tell":
        assert (trials[0].state, trials[0].value) == (TrialState.COMPLETE, 0.75)
    if operation == "study":
        assert storage.get_study_id_from_name("second") == answer
        with pytest.raises(DuplicatedStudyError):
            mine.create_new_study(MAXIMIZE, "second")
    assert not any("tuner:" in key for trial in trials for key in trial.system_attrs)


def test_a_server_that_goes_away_for_a_moment(db: Database, storage: PostgresStorage, study_id: int) -> None:
    stop = threading.Event()

    def disturb() -> None:
        with Database(storage._url) as mine:
            while not stop.wait(0.05):
                mine.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'tuner storage' AND datname = current_database()"
                )

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        study_in(storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=12)
    finally:
        stop.set()
        disturber.join()
    trials = storage.get_all_trials(study_id)
    assert [trial.number for trial in trials] == list(range(12))
    assert all(trial.state is TrialState.COMPLETE and trial.params for trial in trials)


# --- what tuner's workers hold ---------------------------------------------------------------------------------------


@pytest.fixture
def worker(db: Database) -> UUID:
    worker_id = uuid4()
    workers.register(db, worker_id, host="here", pid=7, device="cpu", slots=2, version="0.1.0")
    return worker_id


@pytest.fixture
def served(db: Database, study_id: int) -> int:
    """The study, as one that workers serve."""
    db.execute(
        "INSERT INTO tuner.study (study_id, document, budget, epochs, versions) "
        "VALUES (%(study)s, '{}', '{\"trials\": 9}', 4, '{}')",
        study=study_id,
    )
    return study_id


@pytest.fixture
def claimed(db: Database, served: int, worker: UUID) -> Claim:
    claim = claim_one(db, served, worker)
    assert isinstance(claim, Claim)
    return claim


def test_workers_alone_make_their_trials(storage: PostgresStorage, served: int) -> None:
    study = study_in(storage)
    for call in (study.ask, lambda: study.enqueue_trial({"x": 0.5})):
        with pytest.raises(InvalidInput, match=r"'digits' is served by tuner's workers.*tuner study set digits"):
            call()
    assert study.trials == []


def test_workers_alone_write_their_trials(db: Database, storage: PostgresStorage, claimed: Claim) -> None:
    trial_id = claimed.held.trial_id

    def refused() -> None:
        for write in (
            lambda: storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5]),
            lambda: storage.set_trial_intermediate_value(trial_id, 1, 0.5),
            lambda: storage.set_trial_user_attr(trial_id, "note", "x"),
        ):
            with pytest.raises(InvalidInput, match=r"trial 0 of study 'digits' is in the hands of tuner's workers"):
                write()

    refused()
    claims.give_back(db, claimed.held)
    refused()
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING) is False
    with pytest.raises(InvalidInput):
        study_in(storage).ask()  # neither takes what was given back


def test_a_failed_trial_that_is_tried_again_is_seen(
    db: Database, storage: PostgresStorage, served: int, claimed: Claim, worker: UUID
) -> None:
    def states() -> list[str]:
        return [trial.state.name for trial in storage.get_all_trials(served)]

    def retry() -> None:  # as `tuner trial retry` does
        db.execute(
            "UPDATE tuner.lease SET outcome = NULL, finish_seq = NULL, lease_until = NULL;"
            "UPDATE trials SET state = 'WAITING', datetime_complete = NULL"
        )

    claims.tell(db, claimed.held, Ending(outcome=Outcome.CRASHED))
    assert states() == ["FAIL"]
    retry()
    assert states() == ["WAITING"]
    again = claim_one(db, served, worker)
    assert isinstance(again, Claim)
    claims.tell(db, again.held, Ending(outcome=Outcome.CRASHED))
    assert states() == ["FAIL"]
    # Tried and failed again between two looks.
    retry()
    third = claim_one(db, served, worker)
    assert isinstance(third, Claim)
    claims.tell(db, third.held, Ending(outcome=Outcome.CRASHED), Progress(curve={1: 0.5}))
    assert states() == ["FAIL"]
    assert storage.get_all_trials(served)[0].intermediate_values == {1: 0.5}
    assert storage.get_trial(claimed.held.trial_id).intermediate_values == {1: 0.5}


def test_deleting_a_study_that_workers_serve(db: Database, storage: PostgresStorage, claimed: Claim) -> None:
    storage.delete_study(claimed.held.study_id)
    for table in ("tuner.study", "tuner.lease", "trials", "studies"):
        assert db.execute(f"SELECT * FROM {table}") == []
    assert not claims.tell(db, claimed.held, Ending(outcome=Outcome.COMPLETE, value=0.5))


def test_deleting_a_study_waits_for_a_worker_that_writes(
    db: Database, storage: PostgresStorage, claimed: Claim, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers lock a lease before its trial."""
    deleting = threading.Thread(target=storage.delete_study, args=[claimed.held.study_id])
    with Database(storage._url) as worker, worker.transaction():
        worker.execute("UPDATE tuner.lease SET lease_until = NULL")
        deleting.start()
        blocked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        until(lambda: db.execute(blocked))
        worker.execute("UPDATE trials SET state = 'WAITING'")
    deleting.join()
    assert "deadlock" not in caplog.text
    assert storage.get_all_studies() == []


# --- the rest --------------------------------------------------------------------------------------------------------


def test_an_empty_database_gets_its_tables(empty_database_url: str) -> None:
    study = optuna.create_study(storage=PostgresStorage(empty_database_url))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2


def test_an_attribute_that_cannot_be_stored_does_not_poison_the_trial(
    storage: PostgresStorage, other: PostgresStorage, study_id: int
) -> None:
    study = study_in(storage)
    trial = study.ask()
    with pytest.raises(TypeError):
        trial.set_user_attr("set", {1, 2})
    for name in ("long" * 200, "nul\0", "\ud800", 7):
        for call in (
            lambda name: trial.set_user_attr(name, 1),
            lambda name: storage.set_trial_system_attr(trial._trial_id, name, 1),
            lambda name: trial.suggest_float(name, 0, 1),
        ):
            with pytest.raises(InvalidInput, match="name"):
                call(name)
    with pytest.raises(TypeError), pytest.warns(UserWarning, match="for persistent storage"):
        trial.suggest_categorical("set", [{1}, {2}])
    trial.suggest_float("x" * 512, 0, 1)
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    (stored,) = other.get_all_trials(study_id)
    assert (stored.value, set(stored.params), stored.user_attrs) == (0.5, {"x" * 512}, {})


def test_a_report_that_is_refused_takes_no_parameter_with_it(
    storage: PostgresStorage, other: PostgresStorage, study_id: int
) -> None:
    study = study_in(storage)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    with pytest.raises(DatabaseError, match="out of range"):
        trial.report(0.5, 2**40)
    study.tell(trial, 0.5)
    (stored,) = other.get_all_trials(study_id)
    assert (stored.params, stored.value) == (trial.params, 0.5)


def test_no_password_is_shown(password_server: Callable[[str | None], str]) -> None:
    storage = PostgresStorage(password_server("right@1"))
    assert "right" not in repr(storage)
    assert pickle.loads(pickle.dumps(storage)).get_all_studies() == []
