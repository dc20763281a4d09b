from __future__ import annotations

import math
from uuid import UUID, uuid4

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

from tests.storage.rows import claim_one, make_study
from tuner.errors import NotFound
from tuner.states import Outcome, TrialState
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Ending, Progress
from tuner.storage.connection import Database
from tuner.storage.optuna_storage import load_study
from tuner.storage.studies import StudyRecord, get_study
from tuner.storage.trials import best_trials, find_trial, interruptions, list_trials, trial_details

DISTRIBUTIONS = {
    "optimizer": CategoricalDistribution(("adamw", "sgd")),
    "learning_rate[sgd]": FloatDistribution(1e-4, 1e-1, log=True),
    "units": IntDistribution(8, 64, log=True),
    "batch_norm": CategoricalDistribution((True, False)),
}
POINT = {"optimizer": "sgd", "learning_rate[sgd]": 0.012345678901234567, "units": 33, "batch_norm": False}


@pytest.fixture
def study(db: Database) -> StudyRecord:
    make_study(db, name="digits", epochs=9)
    return get_study(db, "digits")


@pytest.fixture
def worker(db: Database) -> UUID:
    worker_id = uuid4()
    workers.register(db, worker_id, host="here", pid=7, device="cpu", slots=2, version="0.1.0")
    return worker_id


def start(db: Database, study: StudyRecord, worker: UUID) -> Claim:
    claim = claim_one(db, study.study_id, worker)
    assert isinstance(claim, Claim)
    for name, kind in DISTRIBUTIONS.items():
        db.execute(
            "INSERT INTO public.trial_params (trial_id, param_name, param_value, distribution_json) "
            "VALUES (%(trial)s, %(name)s, %(value)s, %(kind)s)",
            trial=claim.held.trial_id,
            name=name,
            value=float(kind.to_internal_repr(POINT[name])),
            kind=distribution_to_json(kind),
        )
    return claim


def finish(db: Database, study: StudyRecord, worker: UUID, value: float | None, outcome: Outcome) -> None:
    claim = start(db, study, worker)
    ending = Ending(outcome=outcome, value=value, reason="as it goes", attributes={"best_epoch": 2})
    assert claims.tell(db, claim.held, ending, Progress(curve={1: 0.25, 2: 0.5}, checkpoint="1/1/1/2.ckpt"))


def test_a_line_says_what_became_of_a_trial(db: Database, study: StudyRecord, worker: UUID) -> None:
    finish(db, study, worker, 0.5, Outcome.COMPLETE)
    finish(db, study, worker, None, Outcome.OUT_OF_MEMORY)
    start(db, study, worker)
    done, failed, running = list_trials(db, study)
    assert (done.number, done.state, done.value, done.params) == (0, TrialState.COMPLETE, 0.5, POINT)
    assert list(done.params) == list(POINT)  # in the space's order
    assert isinstance(done.params["units"], int)
    assert (done.epochs, done.attempts, done.deaths, done.outcome) == (2, 1, 0, Outcome.COMPLETE)
    assert (done.worker, done.reason, done.finish_seq) == ("here:7", "as it goes", 1)
    assert done.started_at is not None
    assert done.ended_at is not None
    assert 0 <= (done.ended_at - done.started_at).total_seconds() < 60
    assert (failed.state, failed.value, failed.outcome) == (TrialState.PRUNED, None, Outcome.OUT_OF_MEMORY)
    assert (running.state, running.outcome, running.epochs) == (TrialState.RUNNING, None, 0)


def test_seconds_are_those_of_all_attempts(db: Database, study: StudyRecord, worker: UUID) -> None:
    claim = start(db, study, worker)
    db.execute("UPDATE tuner.lease SET counted_from = now() - interval '100 seconds'")
    assert 99 < find_trial(db, study, 0).seconds < 160
    claims.give_back(db, claim.held)
    seconds = find_trial(db, study, 0).seconds
    assert 99 < seconds < 160
    claim_one(db, study.study_id, worker)
    trial = find_trial(db, study, 0)
    assert (trial.attempts, trial.seconds >= seconds) == (2, True)


def test_the_details_hold_the_curve_and_what_the_dashboard_shows(
    db: Database, study: StudyRecord, worker: UUID
) -> None:
    finish(db, study, worker, 0.5, Outcome.COMPLETE)
    db.execute(
        "INSERT INTO public.trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
        "SELECT trial_id, 3, NULL, 'NAN' FROM public.trials"
    )
    details = trial_details(db, study, "0")
    assert {epoch: value for epoch, value in details.curve.items() if epoch < 3} == {1: 0.25, 2: 0.5}
    assert math.isnan(details.curve[3])
    assert details.attributes["best_epoch"] == 2
    assert details.trial == find_trial(db, study, 0)


def test_every_attempt_is_told(db: Database, study: StudyRecord, worker: UUID) -> None:
    claim = start(db, study, worker)
    claims.give_back(db, claim.held, death=Outcome.CRASHED, reason="its process was killed by SIGKILL")
    assert find_trial(db, study, 0).reason == "its process was killed by SIGKILL"
    again = claim_one(db, study.study_id, worker)
    assert isinstance(again, Claim)
    claims.tell(db, again.held, Ending(outcome=Outcome.COMPLETE, value=0.5))
    start(db, study, worker)
    first, second = trial_details(db, study, 0).attempts
    assert (first.attempt, first.worker, first.ended) == (1, "here:7", "crashed")
    assert first.reason == "its process was killed by SIGKILL"
    assert first.ended_at is not None
    assert first.started_at <= first.ended_at <= second.started_at
    assert (second.attempt, second.ended, second.reason) == (2, "complete", None)
    (running,) = trial_details(db, study, 1).attempts
    assert (running.ended, running.ended_at) == (None, None)
    assert interruptions(db, study) == {"crashed": 1}


def test_the_best_is_the_best_complete_one(db: Database, database_url: str, study: StudyRecord, worker: UUID) -> None:
    with pytest.raises(NotFound, match="no complete trial yet"):
        find_trial(db, study, "best")
    for value, outcome in (
        (0.5, Outcome.COMPLETE),
        (0.9, Outcome.PRUNED),
        (0.7, Outcome.COMPLETE),
        (0.7, Outcome.COMPLETE),
    ):
        finish(db, study, worker, value, outcome)
    assert find_trial(db, study, "best").number == 2
    assert [trial.number for trial in best_trials(db, study, 9)] == [2, 3, 0]
    assert load_study("digits", database_url).best_trial.value == 0.7
    db.execute("UPDATE public.study_directions SET direction = 'MINIMIZE'")
    assert find_trial(db, study, "best").number == 0


@pytest.mark.parametrize("which", [5, "5", "-1", "worst", "99999999999999"])
def test_what_is_no_trial_is_not_found(db: Database, study: StudyRecord, worker: UUID, which: str | int) -> None:
    finish(db, study, worker, 0.5, Outcome.COMPLETE)
    with pytest.raises(NotFound):
        find_trial(db, study, which)


def test_optuna_reads_the_same(db: Database, database_url: str, study: StudyRecord, worker: UUID) -> None:
    finish(db, study, worker, 0.5, Outcome.COMPLETE)
    (trial,) = load_study("digits", database_url).trials
    assert (trial.number, trial.state, trial.value) == (0, optuna.trial.TrialState.COMPLETE, 0.5)
    assert (trial.params, trial.intermediate_values) == (POINT, {1: 0.25, 2: 0.5})


def test_trials_of_other_programs_are_shown_too(db: Database, database_url: str, study: StudyRecord) -> None:
    other = optuna.load_study(study_name="digits", storage=database_url)  # Optuna's RDBStorage knows no owners
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    (trial,) = list_trials(db, study)
    assert (trial.state, trial.attempts, trial.outcome, trial.worker) == (TrialState.COMPLETE, 0, None, None)
