"""What people ask of studies: to begin or go on, to halt, to end, to spend another budget, to try failures again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from tuner.errors import InvalidInput, NotFound, StudyChanged
from tuner.spec.diff import difference
from tuner.spec.search import BudgetConfig
from tuner.spec.study import StudySpec
from tuner.states import Outcome, StudyState, TrialState
from tuner.storage import study_statements as sql
from tuner.storage import trial_statements
from tuner.storage.connection import Database
from tuner.storage.studies import StudyRecord, check_version, create_study, find_study, get_study, locked_study, spent

# What a person may ask for. A worker ends studies by itself: `finished` once the budget is spent.
TRANSITIONS: Mapping[StudyState, frozenset[StudyState]] = {
    StudyState.RUNNING: frozenset({StudyState.PAUSED, StudyState.STOPPING, StudyState.CANCELLED}),
    StudyState.PAUSED: frozenset({StudyState.RUNNING, StudyState.STOPPING, StudyState.CANCELLED}),
    StudyState.STOPPING: frozenset({StudyState.RUNNING, StudyState.PAUSED, StudyState.CANCELLED}),
    StudyState.CANCELLED: frozenset({StudyState.RUNNING}),
    StudyState.FINISHED: frozenset({StudyState.RUNNING}),
}


class Launched(StrEnum):
    """What became of a launch."""

    CREATED = "created"
    RESUMED = "resumed"  # the same study file: it goes on, or has ended and stays so
    BUDGET_UPDATED = "budget_updated"  # only the budget differs


def launch_study(db: Database, spec: StudySpec, versions: Mapping[str, Any]) -> tuple[StudyRecord, Launched]:
    """Makes the study, or goes on with the one of that name, also where it was paused or stopped.

    Raises StudyChanged where that one has other contents (the budget aside), InvalidInput where it was cancelled or
    has spent more than the new budget. Nothing is written then.
    """
    created = create_study(db, spec, versions)
    if created is not None:
        return created, Launched.CREATED
    with db.transaction():
        study = locked_study(db, spec.name)
        _check_contents(study, spec)
        updated = study.budget != spec.budget
        if updated:
            _write_budget(db, study, spec.budget)
        # One that was paused or told to stop goes on in any case: where nothing is left, a worker finds so and ends it.
        if not study.state.ended or spent(db, study.study_id).goes_on:
            _write_state(db, study, StudyState.RUNNING)
    return get_study(db, spec.name), Launched.BUDGET_UPDATED if updated else Launched.RESUMED


def check_launch(db: Database, spec: StudySpec) -> None:
    """Raises what `launch_study` would raise now, and writes nothing: for those who launch several or none."""
    study = find_study(db, spec.name)
    if study is not None:
        _check_contents(study, spec)
        if study.budget != spec.budget:  # seconds may have overshot the present one
            _check_budget(db, study, spec.budget)


def set_state(db: Database, name: str, state: StudyState) -> StudyRecord:
    """Pauses, resumes, stops or cancels; asking for the present state changes nothing, but that
    cancelling again ends trials whose workers were lost since.

    Raises NotFound, or InvalidInput where a study in its state cannot get there.
    """
    with db.transaction():
        study = locked_study(db, name)
        if state is not study.state:
            if state not in TRANSITIONS[study.state]:
                raise InvalidInput(f"study {name!r} is {study.state}: it cannot become {state}")
            if study.state is StudyState.FINISHED and not spent(db, study.study_id).goes_on:
                raise InvalidInput(f"study {name!r} has spent its budget; a larger one lets it go on")
            nothing_runs = state is StudyState.STOPPING and not spent(db, study.study_id).open
            _write_state(db, study, StudyState.FINISHED if nothing_runs else state)
        if state is StudyState.CANCELLED:
            db.execute(sql.CANCEL_FREE, study=study.study_id)
    return get_study(db, name)


def set_budget(db: Database, name: str, budget: BudgetConfig) -> StudyRecord:
    """Gives a study another budget; one that finished goes on if there is something left.

    Raises NotFound, or InvalidInput where more than that has been spent.
    """
    with db.transaction():
        study = locked_study(db, name)
        _write_budget(db, study, budget)
        if study.state is StudyState.FINISHED and spent(db, study.study_id).goes_on:
            _write_state(db, study, StudyState.RUNNING)
    return get_study(db, name)


def retry_failed(db: Database, name: str, numbers: Sequence[int] | None = None) -> list[int]:
    """Has failed trials run again, all or those of some numbers: the same number and point, from the last checkpoint.

    What they have spent stays spent. Returns their numbers. Raises NotFound, or InvalidInput where a trial has not
    failed, the study was cancelled, or its budget of epochs leaves no room for them.
    """
    with db.transaction():
        study = locked_study(db, name)
        if study.state is StudyState.CANCELLED:
            raise InvalidInput(f"study {name!r} was cancelled; first: tuner study resume {name}")
        outcomes = {row.number: row.outcome for row in db.execute(sql.OUTCOMES, study=study.study_id)}
        failed = {
            number for number, outcome in outcomes.items() if outcome and Outcome(outcome).state is TrialState.FAIL
        }
        for number in numbers or ():
            if number not in outcomes:
                raise NotFound(f"study {name!r} has no trial {number}; `tuner trial list {name}` shows them")
            if number not in failed:
                now = outcomes[number] or "not ended"
                raise InvalidInput(f"trial {number} is {now}: only failed trials are run again")
        chosen = sorted(failed if numbers is None else set(numbers))
        if chosen:
            db.execute(trial_statements.RETRY, study=study.study_id, numbers=chosen)
            _check_budget(db, study, study.budget.model_copy(update={"seconds": None}))  # which are always overshot
            if study.state is StudyState.FINISHED or study.reason:  # paused, for too many had failed
                _write_state(db, study, StudyState.RUNNING)
    return chosen


def _check_contents(study: StudyRecord, spec: StudySpec) -> None:
    check_version(study)
    # Made anew of what is stored: a later tuner may know more defaults than the one that stored it.
    if study.spec.digest() != spec.digest():
        raise StudyChanged(_changed(study, spec))
    if study.state is StudyState.CANCELLED:
        raise InvalidInput(
            f"study {study.name!r} was cancelled; `tuner study resume {study.name}` goes on with it, "
            "--name makes another"
        )


def _changed(study: StudyRecord, spec: StudySpec) -> str:
    return "\n".join(
        [
            f"study {study.name!r} exists with other contents; launch this file as another study: --name {spec.name}-2",
            *(f"  {line}" for line in difference(study.document, spec.document)),
        ]
    )


def _check_budget(db: Database, study: StudyRecord, budget: BudgetConfig) -> None:
    used = spent(db, study.study_id)
    for key, limit, spent_of_it, meaning in (
        ("trials", budget.trials, used.trials, "trials were started"),
        ("total_epochs", budget.total_epochs, used.reserved_epochs, "epochs are trained or reserved by open trials"),
        ("seconds", budget.seconds, used.seconds, "seconds were trained"),
    ):
        if limit is not None and limit < spent_of_it:
            amount = f"{spent_of_it:.0f}"
            raise InvalidInput(f"budget.{key}: {limit} is too little for study {study.name!r}: {amount} {meaning}")


def _write_budget(db: Database, study: StudyRecord, budget: BudgetConfig) -> None:
    _check_budget(db, study, budget)
    db.execute(sql.SET_BUDGET, study=study.study_id, budget=budget.model_dump(mode="json"))


def _write_state(db: Database, study: StudyRecord, state: StudyState) -> None:
    db.execute(sql.SET_STATE, study=study.study_id, state=state.value, ended=state.ended)
