from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import optuna
import pytest

from tests.storage.rows import claim_one, write_point
from tuner.errors import InvalidInput, NotFound, StudyChanged
from tuner.spec.search import BudgetConfig
from tuner.spec.study import StudySpec, read_spec
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Ending, Progress
from tuner.storage.comparisons import add_member, save_comparison
from tuner.storage.connection import Database
from tuner.storage.evaluations import list_evaluations, log_evaluation
from tuner.storage.optuna_storage import load_study
from tuner.storage.steering import (
    TRANSITIONS,
    Launched,
    check_launch,
    launch_study,
    retry_failed,
    set_budget,
    set_state,
)
from tuner.storage.studies import create_study, delete_study, get_study, list_studies, spent
from tuner.storage.trials import list_trials

VERSIONS = {"tuner": "0.1.0"}

FILE = """
study: {name}
data: {{name: digits}}
model: {{family: mlp, layers: 1, units: {{low: 8, high: 64, log: true}}}}
training:
  epochs: {epochs}
  learning_rate: {{low: 1.0e-4, high: 1.0e-1, log: true, points: 3}}
  optimizer: {{choices: [adamw, sgd]}}
objective: {{metric: {metric}}}
search: {{method: random}}
budget: {budget}
"""

MakeSpec = Callable[..., StudySpec]


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    def make(name: str = "digits", epochs: int = 4, metric: str = "accuracy", budget: str = "{trials: 5}") -> StudySpec:
        file = tmp_path / "study.yaml"
        file.write_text(FILE.format(name=name, epochs=epochs, metric=metric, budget=budget))
        return read_spec(file)

    return make


@pytest.fixture
def worker(db: Database) -> UUID:
    worker_id = uuid4()
    workers.register(db, worker_id, host="here", pid=7, device="cpu", slots=2, version="0.1.0")
    return worker_id


def start(db: Database, study_id: int, worker: UUID) -> Claim:
    claim = claim_one(db, study_id, worker)
    assert isinstance(claim, Claim)
    return claim


def finish(db: Database, study_id: int, worker: UUID, value: float | None, outcome: Outcome = Outcome.COMPLETE) -> None:
    claim = start(db, study_id, worker)
    ending = Ending(outcome=outcome, value=value)
    assert claims.tell(db, claim.held, ending, Progress(curve={1: value or 0.0, 2: value or 0.0}))


def contents(db: Database) -> list[object]:
    tables = db.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('tuner', 'public') ORDER BY 1, 2"
    )
    return [
        (table.tablename, sorted(map(repr, db.execute(f"SELECT * FROM {table.schemaname}.{table.tablename}"))))
        for table in tables
    ]


class TestMaking:
    def test_what_was_launched_is_what_is_read(self, db: Database, make_spec: MakeSpec) -> None:
        spec = make_spec()
        study, launched = launch_study(db, spec, VERSIONS)
        assert launched is Launched.CREATED
        assert study == get_study(db, "digits")
        assert study.spec == spec
        assert (study.state, study.budget, study.epochs) == (StudyState.RUNNING, spec.budget, 4)
        assert (study.versions, study.ended_at) == (VERSIONS, None)

    @pytest.mark.parametrize(("metric", "direction"), [("accuracy", "MAXIMIZE"), ("loss", "MINIMIZE")])
    def test_optuna_reads_it(
        self, db: Database, database_url: str, make_spec: MakeSpec, metric: str, direction: str
    ) -> None:
        launch_study(db, make_spec(metric=metric), VERSIONS)
        study = load_study("digits", database_url)
        assert study.direction.name == direction
        assert study.trials == []

    def test_one_of_racing_launches_makes_it(self, db: Database, database_url: str, tmp_path: Path) -> None:
        file = tmp_path / "study.yaml"
        file.write_text(FILE.format(name="race", epochs=4, metric="accuracy", budget="{trials: 5}"))
        script = (
            "import sys; from pathlib import Path; from tuner.spec.study import read_spec\n"
            "from tuner.storage.connection import Database; from tuner.storage.steering import launch_study\n"
            "print(launch_study(Database(sys.argv[1]), read_spec(Path(sys.argv[2])), {})[1])"
        )
        racers = [
            subprocess.Popen([sys.executable, "-c", script, database_url, file], stdout=subprocess.PIPE, text=True)
            for _ in range(6)
        ]
        assert sorted(racer.communicate(timeout=60)[0].strip() for racer in racers) == ["created"] + ["resumed"] * 5
        assert len(list_studies(db)) == 1

    def test_a_taken_name_is_said_by_none(self, db: Database, make_spec: MakeSpec) -> None:
        assert create_study(db, make_spec(), VERSIONS) is not None
        assert create_study(db, make_spec(), VERSIONS) is None

    def test_a_study_of_another_program_is_left_alone(
        self, db: Database, database_url: str, make_spec: MakeSpec
    ) -> None:
        optuna.create_study(study_name="digits", storage=database_url)
        with pytest.raises(InvalidInput, match="another program"):
            launch_study(db, make_spec(), VERSIONS)
        with pytest.raises(NotFound):
            get_study(db, "digits")


class TestLaunchingAgain:
    def test_the_same_file_goes_on(self, db: Database, make_spec: MakeSpec) -> None:
        first, _ = launch_study(db, make_spec(), VERSIONS)
        for state in (StudyState.PAUSED, StudyState.STOPPING):
            set_state(db, "digits", state)
            again, launched = launch_study(db, make_spec(), {"tuner": "9"})
            assert (again, launched) == (first, Launched.RESUMED)

    def test_another_budget_is_taken_over(self, db: Database, make_spec: MakeSpec) -> None:
        launch_study(db, make_spec(), VERSIONS)
        study, launched = launch_study(db, make_spec(budget="{trials: 9, seconds: 60}"), VERSIONS)
        assert launched is Launched.BUDGET_UPDATED
        assert study.budget == BudgetConfig(trials=9, seconds=60)
        assert study.spec.budget == study.budget
        assert launch_study(db, make_spec(budget="{trials: 9, seconds: 60}"), VERSIONS)[1] is Launched.RESUMED

    def test_anything_else_is_refused_with_the_difference(self, db: Database, make_spec: MakeSpec) -> None:
        launch_study(db, make_spec(), VERSIONS)
        before = contents(db)
        with pytest.raises(StudyChanged) as caught:
            launch_study(db, make_spec(epochs=7, budget="{trials: 50}"), VERSIONS)
        assert "training.epochs: 4 -> 7" in str(caught.value)
        assert "--name" in str(caught.value)
        assert contents(db) == before

    def test_seconds_that_overshot_keep_nobody_from_launching_again(
        self, db: Database, make_spec: MakeSpec, worker: UUID
    ) -> None:
        study, _ = launch_study(db, make_spec(budget="{seconds: 60}"), VERSIONS)
        finish(db, study.study_id, worker, 0.5)
        db.execute("UPDATE tuner.study SET finished_seconds = 65")
        check_launch(db, make_spec(budget="{seconds: 60}"))
        assert launch_study(db, make_spec(budget="{seconds: 60}"), VERSIONS)[1] is Launched.RESUMED
        with pytest.raises(InvalidInput, match="65 seconds were trained"):
            check_launch(db, make_spec(budget="{seconds: 61}"))

    def test_a_budget_below_what_is_spent_is_refused(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        study, _ = launch_study(db, make_spec(), VERSIONS)
        for _ in range(3):
            finish(db, study.study_id, worker, 0.5)
        before = contents(db)
        for budget, says in (
            ("{trials: 2}", "3 trials were started"),
            ("{total_epochs: 5}", "6 epochs are trained or reserved"),
        ):
            with pytest.raises(InvalidInput, match=says):
                launch_study(db, make_spec(budget=budget), VERSIONS)
        assert contents(db) == before
        assert launch_study(db, make_spec(budget="{trials: 3}"), VERSIONS)[0].budget.trials == 3

    def test_a_finished_study_goes_on_only_with_a_larger_budget(
        self, db: Database, make_spec: MakeSpec, worker: UUID
    ) -> None:
        study, _ = launch_study(db, make_spec(budget="{trials: 1}"), VERSIONS)
        finish(db, study.study_id, worker, 0.5)
        claim_one(db, study.study_id, worker)  # finds nothing left
        ended, _ = launch_study(db, make_spec(budget="{trials: 1}"), VERSIONS)
        assert ended.state is StudyState.FINISHED
        assert ended.ended_at is not None
        with pytest.raises(InvalidInput, match="spent its budget"):
            set_state(db, "digits", StudyState.RUNNING)
        again, _ = launch_study(db, make_spec(budget="{trials: 2}"), VERSIONS)
        assert (again.state, again.ended_at) == (StudyState.RUNNING, None)
        assert start(db, study.study_id, worker).held.number == 1

    @pytest.mark.parametrize("trials", [0, 2])
    @pytest.mark.parametrize("state", [StudyState.PAUSED, StudyState.STOPPING])
    def test_a_launch_goes_on_with_a_study_that_was_halted(
        self, db: Database, make_spec: MakeSpec, worker: UUID, state: StudyState, trials: int
    ) -> None:
        """Also where nothing is left of its budget: it is for a worker to find that it has ended."""
        study, _ = launch_study(db, make_spec(budget="{trials: 2}"), VERSIONS)
        for _ in range(trials):
            finish(db, study.study_id, worker, 0.5)
        db.execute("UPDATE tuner.study SET state = %(state)s", state=state)
        again, launched = launch_study(db, make_spec(budget="{trials: 2}"), VERSIONS)
        assert (again.state, launched) == (StudyState.RUNNING, Launched.RESUMED)
        found = claim_one(db, study.study_id, worker)
        assert isinstance(found, claims.Nothing if trials else Claim)

    def test_a_cancelled_study_is_not_gone_on_with_by_accident(self, db: Database, make_spec: MakeSpec) -> None:
        launch_study(db, make_spec(), VERSIONS)
        set_state(db, "digits", StudyState.CANCELLED)
        with pytest.raises(InvalidInput, match="was cancelled"):
            launch_study(db, make_spec(), VERSIONS)
        assert set_state(db, "digits", StudyState.RUNNING).ended_at is None
        assert launch_study(db, make_spec(), VERSIONS)[1] is Launched.RESUMED


class TestStates:
    def test_only_legal_transitions(self, db: Database, make_spec: MakeSpec) -> None:
        launch_study(db, make_spec(), VERSIONS)
        for before, after in itertools.product(StudyState, StudyState):
            db.execute("UPDATE tuner.study SET state = %(state)s", state=before)
            if after is before or after in TRANSITIONS[before]:
                begun = db.execute("SELECT FROM tuner.lease")
                stops_at_once = after is StudyState.STOPPING and before is not after and not begun
                assert set_state(db, "digits", after).state is (StudyState.FINISHED if stops_at_once else after)
            else:
                with pytest.raises(InvalidInput, match=f"is {before}: it cannot become {after}"):
                    set_state(db, "digits", after)
                assert get_study(db, "digits").state is before

    def test_a_budget_may_be_set_while_it_runs(self, db: Database, make_spec: MakeSpec) -> None:
        launch_study(db, make_spec(), VERSIONS)
        study = set_budget(db, "digits", BudgetConfig(trials=7))
        assert (study.budget.trials, study.spec.budget.trials, study.state) == (7, 7, StudyState.RUNNING)


class TestRetrying:
    def test_failed_numbers_are_run_again_with_the_same_point(
        self, db: Database, make_spec: MakeSpec, worker: UUID
    ) -> None:
        study, _ = launch_study(db, make_spec(budget="{trials: 3}"), VERSIONS)
        space, point = study.spec.space, {"units": 8, "learning_rate": 0.01}
        failed = start(db, study.study_id, worker)
        write_point(db, failed.held, space, point)
        claims.tell(db, failed.held, Ending(outcome=Outcome.CRASHED, reason="a bug"), Progress(curve={1: 0.5}))
        finish(db, study.study_id, worker, 0.7)
        finish(db, study.study_id, worker, None, Outcome.DIVERGED)
        claim_one(db, study.study_id, worker)
        assert get_study(db, "digits").state is StudyState.FINISHED
        assert retry_failed(db, "digits") == [0]
        assert get_study(db, "digits").state is StudyState.RUNNING
        again = start(db, study.study_id, worker)
        assert (again.held.number, again.held.attempt, again.deaths, again.sampled) == (0, 2, 0, True)
        claims.tell(db, again.held, Ending(outcome=Outcome.COMPLETE, value=0.9), Progress(curve={1: 0.5, 2: 0.9}))
        claim_one(db, study.study_id, worker)
        ended = get_study(db, "digits")
        used = spent(db, study.study_id)
        assert (ended.state, used.trials, used.epochs) == (StudyState.FINISHED, 3, 6)
        (trial,) = [trial for trial in list_trials(db, ended) if trial.number == 0]
        assert (trial.params, trial.value, trial.outcome, trial.reason) == (point, 0.9, Outcome.COMPLETE, None)
        assert retry_failed(db, "digits") == []

    def test_only_failed_ones_are_run_again(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        study, _ = launch_study(db, make_spec(), VERSIONS)
        finish(db, study.study_id, worker, 0.5)
        before = contents(db)
        with pytest.raises(InvalidInput, match="trial 0 is complete"):
            retry_failed(db, "digits", [0])
        with pytest.raises(NotFound, match="no trial 7"):
            retry_failed(db, "digits", [7])
        assert contents(db) == before
        set_state(db, "digits", StudyState.CANCELLED)
        with pytest.raises(InvalidInput, match="tuner study resume digits"):
            retry_failed(db, "digits")

    def test_failures_are_not_run_again_beyond_the_budget_of_epochs(
        self, db: Database, make_spec: MakeSpec, worker: UUID
    ) -> None:
        study, _ = launch_study(db, make_spec(epochs=4, budget="{total_epochs: 9}"), VERSIONS)
        failed = start(db, study.study_id, worker)
        claims.tell(db, failed.held, Ending(outcome=Outcome.CRASHED), Progress(curve={1: 0.5}))
        start(db, study.study_id, worker)
        start(db, study.study_id, worker)  # 1 trained, 8 reserved: what the failed one left is given out
        before = contents(db)
        with pytest.raises(InvalidInput, match="12 epochs are trained or reserved"):
            retry_failed(db, "digits")
        assert contents(db) == before

    def test_failures_are_run_again_also_where_seconds_overshot(
        self, db: Database, make_spec: MakeSpec, worker: UUID
    ) -> None:
        """A budget of seconds is always overshot a little; what is run again was begun within it."""
        study, _ = launch_study(db, make_spec(budget="{seconds: 60}"), VERSIONS)
        finish(db, study.study_id, worker, None, Outcome.CRASHED)
        finish(db, study.study_id, worker, 0.5)
        db.execute("UPDATE tuner.study SET finished_seconds = 65")
        assert retry_failed(db, "digits") == [0]

    def test_deaths_before_a_retry_are_forgiven(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        study, _ = launch_study(db, make_spec(budget="{trials: 1}"), VERSIONS)
        other = uuid4()
        workers.register(db, other, host="there", pid=8, device="cpu", slots=1, version="0.1.0")
        claims.give_back(db, start(db, study.study_id, other).held, death=Outcome.CRASHED)
        claims.tell(db, start(db, study.study_id, worker).held, Ending(outcome=Outcome.CRASHED))
        assert retry_failed(db, "digits") == [0]
        for _ in range(3):
            claims.give_back(db, start(db, study.study_id, worker).held, death=Outcome.CRASHED)
        assert start(db, study.study_id, other).deaths == 3  # they came on one worker

    def test_a_resumed_study_counts_its_failures_anew(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        study, _ = launch_study(db, make_spec(budget="{trials: 9, failures: 1}"), VERSIONS)
        finish(db, study.study_id, worker, None, Outcome.CRASHED)
        paused = get_study(db, "digits")
        assert (paused.state, paused.reason) == (StudyState.PAUSED, "1 trial failed: crashed")
        resumed = set_state(db, "digits", StudyState.RUNNING)
        assert (resumed.state, resumed.reason) == (StudyState.RUNNING, None)
        finish(db, study.study_id, worker, 0.5)
        assert get_study(db, "digits").state is StudyState.RUNNING


class TestVersions:
    def test_a_study_of_another_release_is_left_alone(self, db: Database, make_spec: MakeSpec) -> None:
        launch_study(db, make_spec(), {"tuner": "0.0.9"})
        with pytest.raises(InvalidInput, match=r"made by tuner 0\.0\.9, this is .*: its trials would not be the same"):
            launch_study(db, make_spec(), VERSIONS)


class TestLooking:
    def test_a_misspelt_name_is_told_the_right_one(self, db: Database, make_spec: MakeSpec) -> None:
        launch_study(db, make_spec(), VERSIONS)
        with pytest.raises(NotFound, match="did you mean 'digits'"):
            get_study(db, "digist")
        for call in (
            lambda: get_study(db, "x"),
            lambda: set_state(db, "x", StudyState.PAUSED),
            lambda: delete_study(db, "x"),
            lambda: set_budget(db, "x", BudgetConfig(trials=1)),
        ):
            with pytest.raises(NotFound, match="tuner study list"):
                call()

    def test_the_list_counts(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        first, _ = launch_study(db, make_spec(), VERSIONS)
        launch_study(db, make_spec(name="other", metric="loss"), VERSIONS)
        finish(db, first.study_id, worker, 0.5)
        finish(db, first.study_id, worker, 0.9)
        finish(db, first.study_id, worker, None, Outcome.DIVERGED)
        start(db, first.study_id, worker)
        line, other = list_studies(db)
        assert (line.name, line.state, line.metric, line.budget.trials) == ("digits", "running", "accuracy", 5)
        counts = {TrialState.COMPLETE: 2, TrialState.PRUNED: 1, TrialState.RUNNING: 1}
        assert {state: count for state, count in line.trials.items() if count} == counts
        assert (line.best_value, line.best_number, line.workers, line.epochs) == (0.9, 1, 1, 6)
        assert (other.best_value, other.best_number, other.workers, other.epochs) == (None, None, 0, 0)
        used = spent(db, first.study_id)
        assert (used.trials, used.open, used.epochs, used.reserved_epochs) == (4, 1, 6, 10)

    def test_the_best_of_a_loss_is_the_least(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        study, _ = launch_study(db, make_spec(metric="loss"), VERSIONS)
        for value in (0.5, 0.2, 0.9):
            finish(db, study.study_id, worker, value)
        (line,) = list_studies(db)
        assert (line.best_value, line.best_number) == (0.2, 1)


class TestDeleting:
    def fill(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        study, _ = launch_study(db, make_spec(), VERSIONS)
        finish(db, study.study_id, worker, 0.5)
        start(db, study.study_id, worker)
        comparison = save_comparison(db, "trio", {"methods": ["random"]})
        add_member(db, comparison, study_id=study.study_id, method="random", seed=0)
        log_evaluation(db, study.study_id, 0, {"accuracy": 0.9})

    def left(self, db: Database) -> dict[str, int]:
        return {name: len(rows) for name, rows in contents(db) if rows}  # type: ignore[misc]

    @pytest.mark.parametrize("by_optuna", [False, True])
    def test_nothing_of_a_study_stays(
        self, db: Database, database_url: str, make_spec: MakeSpec, worker: UUID, by_optuna: bool
    ) -> None:
        launch_study(db, make_spec(name="stays"), VERSIONS)
        before = self.left(db)
        self.fill(db, make_spec, worker)
        if by_optuna:
            optuna.delete_study(study_name="digits", storage=database_url)
        else:
            delete_study(db, "digits")
        assert self.left(db) == before | {"comparison": 1}
        assert [study.name for study in list_studies(db)] == ["stays"]

    def test_openings_of_the_test_part_are_kept_in_order(self, db: Database, make_spec: MakeSpec, worker: UUID) -> None:
        study, _ = launch_study(db, make_spec(), VERSIONS)
        log_evaluation(db, study.study_id, 3, {"accuracy": 0.9, "loss": float("nan")})
        log_evaluation(db, study.study_id, 1, {"accuracy": 0.8})
        first, second = list_evaluations(db, study.study_id)
        assert (first.number, second.number, first.scores) == (3, 1, {"accuracy": 0.9, "loss": None})
        assert first.opened_at <= second.opened_at
