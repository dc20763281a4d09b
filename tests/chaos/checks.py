"""What must hold afterwards, asked of the rows."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.harness import Arena
from tuner.storage.connection import Row
from tuner.storage.studies import StudyRecord

SURVIVED_DEATHS = 2  # a victim's trial has died less often, for the third death rightly ends it


def _rows(arena: Arena, statement: str, study: StudyRecord, **values: object) -> list[Row]:
    return arena.rows(statement, study=study.study_id, **values)


def assert_exactly(arena: Arena, study: StudyRecord, trials: int, *, states: Sequence[str] = ("COMPLETE",)) -> None:
    """Numbers 0 to trials - 1, each once, in Optuna's table and in ours, and all of them ended so."""
    (row,) = _rows(
        arena,
        """
        SELECT count(*) AS trials, count(DISTINCT trials.number) AS numbers, min(trials.number) AS first,
            max(trials.number) AS last, count(lease.trial_id) AS leases,
            count(*) FILTER (WHERE trials.number <> lease.number) AS crossed,
            count(*) FILTER (WHERE trials.state::text <> ALL (%(states)s)) AS others
        FROM trials LEFT JOIN tuner.lease USING (trial_id) WHERE trials.study_id = %(study)s""",
        study,
        states=list(states),
    )
    assert row == (trials, trials, 0, trials - 1, trials, 0, 0), row


def assert_whole(arena: Arena, study: StudyRecord, trials: int, epochs: int) -> None:
    """So many trials, of so many epochs each, and nothing about them is missing, doubled or left over."""
    assert_exactly(arena, study, trials)
    assert_nothing_running(arena, study)
    assert_no_duplicates(arena, study)
    assert_attempts_recorded(arena, study)
    assert_gapless_curves(arena, study, epochs)


def assert_nothing_running(arena: Arena, study: StudyRecord) -> None:
    held = _rows(
        arena,
        """
        SELECT trials.number, trials.state::text, lease.lease_until, lease.outcome
        FROM trials LEFT JOIN tuner.lease USING (trial_id)
        WHERE trials.study_id = %(study)s
            AND (trials.state IN ('RUNNING', 'WAITING') OR lease.lease_until IS NOT NULL OR lease.outcome IS NULL)""",
        study,
    )
    assert held == []


def assert_no_duplicates(arena: Arena, study: StudyRecord) -> None:
    """Each ended trial has one place in the order of finishing, one value and one row for every knob and epoch."""
    (order,) = _rows(
        arena,
        """
        SELECT count(*) FILTER (WHERE outcome IS NOT NULL) AS ended, count(DISTINCT finish_seq) AS places,
            coalesce(max(finish_seq), 0) AS last, max(study.last_finish_seq) AS counted
        FROM tuner.study LEFT JOIN tuner.lease USING (study_id) WHERE study_id = %(study)s""",
        study,
    )
    assert order.ended == order.places == order.last == order.counted, order
    for table, key in (
        ("trial_values", "objective"),
        ("trial_params", "param_name"),
        ("trial_intermediate_values", "step"),
        ("trial_user_attributes", "key"),
        ("trial_system_attributes", "key"),
    ):
        twice = _rows(
            arena,
            f"""
            SELECT trials.number, {key}, count(*) FROM {table} JOIN trials USING (trial_id)
            WHERE study_id = %(study)s GROUP BY 1, 2 HAVING count(*) > 1""",
            study,
        )
        assert twice == [], table


def assert_attempts_recorded(arena: Arena, study: StudyRecord) -> None:
    """Each attempt at a finished trial is on record and closed; those that died are the deaths that were counted."""
    wrong = _rows(
        arena,
        """
        SELECT lease.number, lease.attempt, lease.deaths, array_agg(attempt.ended ORDER BY attempt.attempt) AS ended
        FROM tuner.lease LEFT JOIN tuner.attempt USING (trial_id) WHERE study_id = %(study)s GROUP BY lease.trial_id
        HAVING array_agg(attempt.attempt ORDER BY attempt.attempt)
                IS DISTINCT FROM (SELECT array_agg(n) FROM generate_series(1, lease.attempt) AS n)
            OR count(*) FILTER (WHERE attempt.ended IN ('lost', 'crashed', 'timed_out')) <> lease.deaths
            OR count(attempt.ended) <> lease.attempt
            OR max(attempt.ended) FILTER (WHERE attempt.attempt = lease.attempt) <> lease.outcome""",
        study,
    )
    assert wrong == []


def assert_gapless_curves(arena: Arena, study: StudyRecord, epochs: int) -> None:
    """Every trial has each epoch from the first to the last once, and a value."""
    gaps = _rows(
        arena,
        """
        SELECT number, array_agg(step ORDER BY step) AS steps FROM trials
        LEFT JOIN trial_intermediate_values USING (trial_id) LEFT JOIN trial_values USING (trial_id)
        WHERE study_id = %(study)s GROUP BY number
        HAVING array_agg(step ORDER BY step) IS DISTINCT FROM %(steps)s OR count(value) <> %(epochs)s""",
        study,
        epochs=epochs,
        steps=list(range(1, epochs + 1)),
    )
    assert gaps == []


_WHOLE = """
    SELECT trials.number, trials.state::text,
        (SELECT value FROM trial_values v WHERE v.trial_id = trials.trial_id) AS value,
        (SELECT jsonb_object_agg(param_name, param_value) FROM trial_params p WHERE p.trial_id = trials.trial_id)
            AS point,
        (SELECT jsonb_object_agg(step, intermediate_value) FROM trial_intermediate_values i
            WHERE i.trial_id = trials.trial_id) AS curve
    FROM trials WHERE study_id = """


def assert_equal(arena: Arena, study: StudyRecord, undisturbed: StudyRecord) -> None:
    """Points, curves and values are those of the undisturbed study, to the bit."""
    one, other = f"{_WHOLE} %(study)s", f"{_WHOLE} %(undisturbed)s"
    different = _rows(
        arena,
        f"(({one}) EXCEPT ({other})) UNION ALL (({other}) EXCEPT ({one}))",
        study,
        undisturbed=undisturbed.study_id,
    )
    assert different == []


def assert_no_deaths(arena: Arena, study: StudyRecord) -> None:
    assert deaths(arena, study) == 0


def deaths(arena: Arena, study: StudyRecord) -> int:
    ((count,),) = _rows(arena, "SELECT coalesce(sum(deaths), 0) FROM tuner.lease WHERE study_id = %(study)s", study)
    return int(count)


def assert_study_finished(arena: Arena, study: StudyRecord) -> None:
    ((state,),) = _rows(arena, "SELECT state FROM tuner.study WHERE study_id = %(study)s", study)
    assert state == "finished"


def distinct_points(arena: Arena, study: StudyRecord) -> int:
    ((count,),) = _rows(
        arena,
        """
        SELECT count(DISTINCT point) FROM (
            SELECT jsonb_object_agg(param_name, param_value) AS point FROM trial_params JOIN trials USING (trial_id)
            WHERE study_id = %(study)s GROUP BY trial_id
        ) AS points""",
        study,
    )
    return int(count)


def assert_one_attempt(arena: Arena, study: StudyRecord) -> None:
    """No trial was begun twice."""
    again = _rows(arena, "SELECT number, attempt FROM tuner.lease WHERE study_id = %(study)s AND attempt <> 1", study)
    assert again == []
