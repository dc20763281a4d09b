"""Who gets which trial: exactly the budget, one attempt at a time, nothing written by those who lost theirs."""

from __future__ import annotations

import threading
from uuid import UUID, uuid4

import pytest

from tests.storage.rows import claim_one, make_study, make_worker, write_point
from tuner.spec.space import FloatRange, Parameter, Space
from tuner.states import Outcome, StudyState
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Ending, Nothing, Progress, Standing
from tuner.storage.connection import Database

SPACE = Space(
    entries=(Parameter(path="training.learning_rate", name="learning_rate", domain=FloatRange(low=0, high=1)),)
)


@pytest.fixture
def worker(db: Database) -> UUID:
    return make_worker(db)


def take(db: Database, study: int, worker: UUID) -> Claim:
    claim = claim_one(db, study, worker)
    assert isinstance(claim, Claim)
    return claim


def long_since(db: Database) -> None:
    """The database has been seen alive for an hour, until now."""
    db.execute("UPDATE tuner.pulse SET since = clock_timestamp() - interval '1 hour', last = clock_timestamp()")


def expire(db: Database, claim: Claim) -> None:
    long_since(db)
    db.execute(
        "UPDATE tuner.lease SET lease_until = clock_timestamp() - interval '1 second' WHERE trial_id = %(trial)s",
        trial=claim.held.trial_id,
    )


def curve_of(db: Database, claim: Claim) -> dict[int, float]:
    rows = db.execute(
        "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = %(t)s ORDER BY step",
        t=claim.held.trial_id,
    )
    return {row.step: row.intermediate_value for row in rows}


def state_of(db: Database, claim: Claim) -> str:
    (row,) = db.execute("SELECT state FROM trials WHERE trial_id = %(t)s", t=claim.held.trial_id)
    return str(row.state)


class TestBudget:
    def test_numbers_count_up_and_end_with_the_budget(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=3)
        taken = [take(db, study, worker) for _ in range(3)]
        assert [claim.held.number for claim in taken] == [0, 1, 2]
        assert claim_one(db, study, worker) == Nothing(state=StudyState.RUNNING, open=3)
        for claim in taken:
            claims.tell(db, claim.held, Ending(outcome=Outcome.CRASHED))
        assert claim_one(db, study, worker) == Nothing(state=StudyState.FINISHED)

    def test_sixteen_workers_get_exactly_the_budget(self, db: Database, database_url: str) -> None:
        study = make_study(db, trials=50)
        taken: list[Claim] = []

        def work() -> None:
            with Database(database_url) as own:
                me = make_worker(own)
                while isinstance(claim := claim_one(own, study, me), Claim):
                    taken.append(claim)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claim.held.number for claim in taken) == list(range(50))
        (row,) = db.execute(
            "SELECT count(*), count(DISTINCT number) AS numbers FROM trials WHERE study_id = %(s)s", s=study
        )
        assert (row.count, row.numbers) == (50, 50)

    def test_epochs_are_reserved_and_unused_ones_returned(self, db: Database, worker: UUID) -> None:
        study = make_study(db, epochs=10, total_epochs=25)
        first, _second = take(db, study, worker), take(db, study, worker)
        assert isinstance(claim_one(db, study, worker), Nothing)  # 20 reserved, 5 left
        claims.tell(db, first.held, Ending(outcome=Outcome.PRUNED), Progress(curve={1: 0.5, 2: 0.5}))
        assert take(db, study, worker).held.number == 2  # 2 used + 10 + 10

    def test_seconds_end_a_study(self, db: Database, worker: UUID) -> None:
        study = make_study(db, seconds=60)
        first = take(db, study, worker)
        db.execute("UPDATE tuner.lease SET counted_from = counted_from - interval '61 seconds'")
        assert isinstance(claim_one(db, study, worker), Nothing)
        claims.tell(db, first.held, Ending(outcome=Outcome.COMPLETE, value=1.0))
        assert claim_one(db, study, worker) == Nothing(state=StudyState.FINISHED)

    @pytest.mark.parametrize("state", [StudyState.PAUSED, StudyState.CANCELLED])
    def test_nothing_is_given_out_by_a_study_that_does_not_run(
        self, db: Database, worker: UUID, state: StudyState
    ) -> None:
        study = make_study(db, trials=3)
        db.execute("UPDATE tuner.study SET state = %(state)s", state=state.value)
        assert claim_one(db, study, worker) == Nothing(state=state)

    def test_a_stopping_study_finishes_with_its_last_trial(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=3)
        running = take(db, study, worker)
        db.execute("UPDATE tuner.study SET state = 'stopping'")
        assert claim_one(db, study, worker) == Nothing(state=StudyState.STOPPING, open=1)
        claims.tell(db, running.held, Ending(outcome=Outcome.COMPLETE, value=1.0))
        assert claim_one(db, study, worker) == Nothing(state=StudyState.FINISHED)

    def test_a_stopping_study_ends_what_it_has_begun(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=3)
        begun = take(db, study, worker)
        claims.give_back(db, begun.held)
        db.execute("UPDATE tuner.study SET state = 'stopping'")
        again = take(db, study, worker)
        assert again.held.number == 0
        claims.tell(db, again.held, Ending(outcome=Outcome.COMPLETE, value=1.0))
        assert claim_one(db, study, worker) == Nothing(state=StudyState.FINISHED)

    def test_a_worker_that_the_database_does_not_know_gets_nothing(self, db: Database) -> None:
        """A standby that took over may have missed its registration."""
        study, unknown = make_study(db, trials=3), uuid4()
        assert claim_one(db, study, unknown) == Nothing(state=StudyState.RUNNING)
        assert db.execute("SELECT FROM public.trials") == []
        assert claims.renew(db, unknown, [study]) is None

    def test_a_deleted_study_gives_nothing(self, db: Database, worker: UUID) -> None:
        assert claim_one(db, 12345, worker) == Nothing(state=None)

    def test_dead_time_is_not_charged(self, db: Database, worker: UUID) -> None:
        """A worker that was lost in the night has not trained all night, nor until its lease of 30 s ran out."""
        study = make_study(db, seconds=3600)
        lost = take(db, study, worker)
        long_since(db)
        db.execute(
            "UPDATE tuner.lease SET counted_from = now() - interval '9 hours', "
            "lease_until = now() - interval '9 hours' + interval '40 seconds'"
        )
        again = take(db, study, worker)
        assert again.held.number == lost.held.number
        (row,) = db.execute("SELECT seconds FROM tuner.lease")
        assert row.seconds == pytest.approx(10)


class TestAttempts:
    def test_an_answer_that_was_lost_is_given_again(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=3)
        request = uuid4()
        first = claim_one(db, study, worker, request)
        assert claim_one(db, study, worker, request) == first
        assert take(db, study, worker).held.number == 1

    def test_a_trial_given_back_is_next_from_its_checkpoint(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=3)
        first = take(db, study, worker)
        write_point(db, first.held, SPACE, {"learning_rate": 0.25})
        claims.report(db, first.held, Progress(curve={1: 0.5}, checkpoint="1/1.ckpt"))
        assert claims.give_back(db, first.held)
        assert state_of(db, first) == "WAITING"
        again = take(db, study, worker)
        assert (again.held.number, again.held.attempt, again.deaths) == (0, 2, 0)
        assert (again.checkpoint, again.sampled) == ("1/1.ckpt", True)
        assert state_of(db, again) == "RUNNING"

    def test_a_lost_lease_counts_a_death_and_a_live_one_is_left_alone(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        lost, _live = take(db, study, worker), take(db, study, worker)
        assert isinstance(claim_one(db, study, worker), Nothing)
        expire(db, lost)
        again = take(db, study, worker)
        assert (again.held.number, again.held.attempt, again.deaths) == (0, 2, 1)

    def test_three_lost_leases_fail_the_trial_and_the_study_goes_on(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        for _ in range(claims.MAX_DEATHS):
            expire(db, take(db, study, worker))
        assert take(db, study, worker).held.number == 1
        (row,) = db.execute("SELECT outcome, reason, finish_seq FROM tuner.lease WHERE number = 0")
        assert (row.outcome, row.finish_seq) == ("crashed", 1)
        assert row.reason == "given up after 3 deaths, the last: its worker was not heard of any more"

    def test_three_deaths_on_one_worker_leave_the_trial_to_another(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        other = make_worker(db)
        for _ in range(claims.MAX_DEATHS):
            claim = take(db, study, worker)
            assert claim.held.number == 0
            claims.give_back(db, claim.held, death=Outcome.CRASHED, reason="its process was killed by SIGSEGV")
        assert take(db, study, worker).held.number == 1  # this one is spared the trial
        again = take(db, study, other)
        assert (again.held.number, again.deaths) == (0, 3)
        claims.give_back(db, again.held, death=Outcome.TIMED_OUT, reason="made no step for 120 s")
        claim_one(db, study, other)
        (row,) = db.execute("SELECT outcome, reason FROM tuner.lease WHERE number = 0")
        assert (row.outcome, row.reason) == ("timed_out", "given up after 4 deaths, the last: made no step for 120 s")

    def test_a_worker_that_serves_other_studies_is_no_other_worker(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        workers.register(db, uuid4(), host="there", pid=2, device="cpu", slots=1, version="0", studies=[study + 1])
        for _ in range(claims.MAX_DEATHS):
            claims.give_back(db, take(db, study, worker).held, death=Outcome.CRASHED)
        assert take(db, study, worker).held.number == 1
        (row,) = db.execute("SELECT outcome FROM tuner.lease WHERE number = 0")
        assert row.outcome == "crashed"

    def test_nothing_is_reaped_while_the_database_may_have_been_away(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=1)
        lost = take(db, study, make_worker(db))
        expire(db, lost)
        # The database was away for longer than half a lease: workers that live had no chance to renew.
        db.execute("UPDATE tuner.pulse SET last = clock_timestamp() - interval '16 seconds'")
        assert isinstance(claim_one(db, study, worker), Nothing)
        claims.renew(db, worker, [study])  # it is back: all get a whole lease to say that they live
        assert isinstance(claim_one(db, study, worker), Nothing)
        db.execute("UPDATE tuner.pulse SET since = since - interval '31 seconds'")
        assert take(db, study, worker).held.attempt == 2

    def test_a_lease_that_ran_out_while_nobody_reached_the_database_is_no_death(
        self, db: Database, worker: UUID
    ) -> None:
        study = make_study(db, trials=1)
        expire(db, take(db, study, make_worker(db)))
        db.execute(
            "UPDATE tuner.lease SET lease_until = clock_timestamp() - interval '9 minutes';"
            "UPDATE tuner.pulse SET since = clock_timestamp() - interval '31 seconds'"
        )
        again = take(db, study, worker)
        assert (again.held.attempt, again.deaths) == (2, 0)
        (row,) = db.execute("SELECT ended, reason FROM tuner.attempt WHERE attempt = 1")
        assert (row.ended, row.reason) == ("cut_off", "its worker was lost while no other reached the database")

    def test_short_silences_do_not_break_the_pulse(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=1)
        expire(db, take(db, study, make_worker(db)))
        db.execute("UPDATE tuner.pulse SET last = clock_timestamp() - interval '14 seconds'")
        claims.renew(db, worker, [study])
        assert take(db, study, worker).held.attempt == 2

    def test_every_attempt_is_on_record(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=1)
        claims.give_back(db, take(db, study, worker).held, reason="asked to end")
        claims.give_back(db, take(db, study, worker).held, death=Outcome.CRASHED, reason="killed")
        expire(db, take(db, study, worker))
        last = take(db, study, make_worker(db))
        claims.tell(db, last.held, Ending(outcome=Outcome.COMPLETE, value=1.0))
        rows = db.execute("SELECT attempt, ended, reason, ended_at >= started_at AS over FROM tuner.attempt ORDER BY 1")
        assert [(row.attempt, row.ended, row.reason) for row in rows] == [
            (1, "given_back", "asked to end"),
            (2, "crashed", "killed"),
            (3, "lost", "its worker was not heard of any more"),
            (4, "complete", None),
        ]

    def test_a_cancelled_study_ends_trials_whose_worker_died_later(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        lost = take(db, study, make_worker(db))
        db.execute("UPDATE tuner.study SET state = 'cancelled'")
        waiting = claim_one(db, study, worker)
        assert waiting == Nothing(state=StudyState.CANCELLED, open=1)
        assert isinstance(waiting, Nothing)
        assert not waiting.ended
        expire(db, lost)
        assert claim_one(db, study, worker) == Nothing(state=StudyState.CANCELLED)
        assert state_of(db, lost) == "FAIL"

    def test_a_renewed_lease_is_kept(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=1)
        expire(db, take(db, study, worker))
        assert claims.renew(db, worker, [study, 999]) == {
            study: Standing(state=StudyState.RUNNING, highest=0),
            999: Standing(state=None),
        }
        assert isinstance(claim_one(db, study, worker), Nothing)

    def test_a_worker_that_ends_gives_everything_back(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        taken = [take(db, study, worker), take(db, study, worker)]
        claims.give_back_all(db, worker, "it ended")
        assert [state_of(db, claim) for claim in taken] == ["WAITING", "WAITING"]


class TestFencing:
    @pytest.fixture
    def zombie(self, db: Database, worker: UUID) -> Claim:
        """An attempt whose trial was started again by somebody else."""
        study = make_study(db, trials=1)
        old = take(db, study, worker)
        claims.report(db, old.held, Progress(curve={1: 0.5}))
        expire(db, old)
        take(db, study, make_worker(db))
        return old

    def test_nothing_it_writes_is_accepted(self, db: Database, zombie: Claim) -> None:
        held = zombie.held
        assert not claims.report(db, held, Progress(curve={1: 0.1, 2: 0.9}, checkpoint="x", attributes={"a": 1}))
        assert not write_point(db, held, SPACE, {"learning_rate": 0.5})
        assert not claims.tell(db, held, Ending(outcome=Outcome.COMPLETE, value=0.9), Progress(curve={2: 0.9}))
        assert not claims.give_back(db, held, death=Outcome.CRASHED)
        assert curve_of(db, zombie) == {1: 0.5}
        assert state_of(db, zombie) == "RUNNING"
        (row,) = db.execute("SELECT attempt, deaths, checkpoint, outcome FROM tuner.lease")
        assert (row.attempt, row.deaths, row.checkpoint, row.outcome) == (2, 1, None, None)
        (row,) = db.execute(
            "SELECT (SELECT count(*) FROM trial_params) + (SELECT count(*) FROM trial_values) AS written"
        )
        assert row.written == 0

    def test_an_ended_trial_is_never_written_again(self, db: Database, worker: UUID) -> None:
        claim = take(db, make_study(db, trials=1), worker)
        pruned = Ending(outcome=Outcome.PRUNED, value=0.5)
        assert claims.tell(db, claim.held, pruned, Progress(curve={1: 0.5}))
        assert not claims.tell(db, claim.held, Ending(outcome=Outcome.COMPLETE, value=0.7), Progress(curve={2: 0.7}))
        assert not claims.report(db, claim.held, Progress(curve={2: 0.6}))
        assert curve_of(db, claim) == {1: 0.5}

    @pytest.mark.parametrize("alive", [True, False])
    def test_the_end_that_another_program_gave_stands(self, db: Database, worker: UUID, alive: bool) -> None:
        """`study.tell` through Optuna's own storage, while a worker trains the trial."""
        study = make_study(db, trials=1)
        claim = take(db, study, worker)
        claims.report(db, claim.held, Progress(curve={1: 0.5}))
        db.execute("UPDATE public.trials SET state = 'COMPLETE'")
        if alive:
            assert not claims.report(db, claim.held, Progress(curve={2: 0.6}))
            claims.adopt(db, claim.held)
        else:
            expire(db, claim)
        assert claim_one(db, study, make_worker(db)) == Nothing(state=StudyState.FINISHED)
        (row,) = db.execute("SELECT outcome, reason, epoch FROM tuner.lease")
        assert (row.outcome, row.reason, row.epoch) == ("complete", "ended by another program", 1)
        assert (state_of(db, claim), curve_of(db, claim)) == ("COMPLETE", {1: 0.5})

    def test_writing_the_same_epochs_twice_leaves_one_of_each(self, db: Database, worker: UUID) -> None:
        claim = take(db, make_study(db, trials=1), worker)
        for _ in range(2):
            assert claims.report(db, claim.held, Progress(curve={1: 0.5, 2: 1 / 3}))
        assert curve_of(db, claim) == {1: 0.5, 2: 1 / 3}


class TestLostAnswers:
    """A commit may succeed and its answer be lost: everything is then sent again."""

    def test_an_end_told_twice_is_one_end(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        claim = take(db, study, worker)
        for _ in range(2):
            assert claims.tell(db, claim.held, Ending(outcome=Outcome.CRASHED), Progress(curve={1: 0.5}))
        (row,) = db.execute("SELECT last_finish_seq, finished_epochs, failures FROM tuner.study")
        assert (row.last_finish_seq, row.finished_epochs, row.failures) == (1, 1, 1)

    def test_a_death_told_twice_is_one_death(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=2)
        held = take(db, study, worker).held
        claims.give_back(db, held, death=Outcome.CRASHED)
        assert not claims.give_back(db, held, death=Outcome.CRASHED)
        assert take(db, study, worker).deaths == 1


class TestFailures:
    def test_so_many_failures_pause_the_study(self, db: Database, worker: UUID) -> None:
        study = make_study(db, trials=9, failures=2)
        taken = [take(db, study, worker) for _ in range(4)]
        outcomes = (Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT)
        for claim, outcome in zip(taken, outcomes, strict=False):
            claims.tell(db, claim.held, Ending(outcome=outcome, reason="no such file: x"))
        (row,) = db.execute("SELECT state, reason FROM tuner.study")
        assert (row.state, row.reason) == ("paused", "2 trials failed, the last: no such file: x")
        assert claim_one(db, study, worker) == Nothing(state=StudyState.PAUSED, open=1, reason=row.reason)


def test_a_claim_is_one_round_trip_and_so_is_every_write(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=2)
    sent: list[str] = []
    execute = db.execute

    def counted(statement: str, **values: object) -> list[object]:
        sent.append(statement)
        return execute(statement, **values)

    db.execute = counted  # type: ignore[method-assign]
    claim = take(db, study, worker)
    write_point(db, claim.held, SPACE, {"learning_rate": 0.25})
    claims.report(db, claim.held, Progress(curve={1: 0.5}))
    claims.tell(db, claim.held, Ending(outcome=Outcome.COMPLETE, value=1.0))
    assert len(sent) == 4


def test_the_order_of_finishing_is_counted_without_gaps(db: Database, worker: UUID) -> None:
    study = make_study(db, trials=3)
    taken = [take(db, study, worker) for _ in range(3)]
    for claim in (taken[2], taken[0], taken[1]):
        claims.tell(db, claim.held, Ending(outcome=Outcome.COMPLETE, value=0.5))
    rows = db.execute("SELECT number FROM tuner.lease ORDER BY finish_seq")
    assert [row.number for row in rows] == [2, 0, 1]


def test_optuna_reads_what_was_written(db: Database, database_url: str, worker: UUID) -> None:
    import optuna

    from tuner.storage.optuna_storage import optuna_storage

    study_id = make_study(db, trials=2)
    good, bad = take(db, study_id, worker), take(db, study_id, worker)
    write_point(db, good.held, SPACE, {"learning_rate": 0.25}, {"finished": 0, "running": []})
    claims.tell(
        db,
        good.held,
        Ending(outcome=Outcome.COMPLETE, value=0.75, attributes={"best_epoch": 2}),
        Progress(curve={1: 0.5, 2: 0.75}),
    )
    claims.tell(db, bad.held, Ending(outcome=Outcome.DIVERGED, reason="NaN"))
    storage = optuna_storage(database_url)
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
    first, second = study.trials
    assert (first.number, first.state.name, first.value) == (0, "COMPLETE", 0.75)
    assert first.params == {"learning_rate": 0.25}
    assert first.intermediate_values == {1: 0.5, 2: 0.75}
    assert first.user_attrs["best_epoch"] == 2
    assert first.user_attrs["epochs"] == 2
    assert first.datetime_complete is not None
    assert second.state.name == "PRUNED"
    assert second.system_attrs["constraints:diverged"] == 1.0
    assert study.best_trial.number == 0
