"""Studies: made once, found by name, gone on with, given another budget, ended."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from tuner.errors import InvalidInput, NotFound, StudyChanged
from tuner.spec.diff import difference
from tuner.spec.search import BudgetConfig
from tuner.spec.study import StudySpec, spec_from_document
from tuner.states import StudyState, TrialState
from tuner.storage import study_statements as sql
from tuner.storage.connection import Database, Row

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


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a study has used of its budget."""

    trials: int  # highest number + 1, whatever their outcome
    open: int  # of these, not ended
    epochs: int  # trained and reported
    reserved_epochs: int  # these, and all that the open trials may still train
    seconds: float  # of training


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    study_id: int
    name: str
    folder: str  # of its files, below the artifacts folder
    document: Mapping[str, Any]  # the study file, defaults filled in
    budget: BudgetConfig
    epochs: int  # of a trial
    state: StudyState
    versions: Mapping[str, Any]  # of tuner, Python, torch … that made it
    created_at: datetime
    ended_at: datetime | None

    @property
    def spec(self) -> StudySpec:
        return spec_from_document(self.name, self.document)


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A line of `tuner study list`."""

    study_id: int
    name: str
    state: StudyState
    trials: Mapping[TrialState, int]
    budget: BudgetConfig
    metric: str
    best_value: float | None
    best_number: int | None
    workers: int  # that hold a trial now
    epochs: int  # trained, all trials
    seconds: float  # of training, all trials
    created_at: datetime
    ended_at: datetime | None


def create_study(db: Database, spec: StudySpec, versions: Mapping[str, Any]) -> StudyRecord | None:
    """Makes the study, Optuna's rows and ours in one transaction; None where the name is taken."""
    rows = db.execute(
        sql.CREATE,
        name=spec.name,
        direction=spec.objective.direction.upper(),
        document=spec.document,
        budget=spec.budget.model_dump(mode="json"),
        epochs=spec.epochs,
        versions=versions,
    )
    return get_study(db, spec.name) if rows else None


def launch_study(db: Database, spec: StudySpec, versions: Mapping[str, Any]) -> tuple[StudyRecord, Launched]:
    """Makes the study, or goes on with the one of that name, also where it was paused or stopped.

    Raises StudyChanged where that one has other contents (the budget aside), InvalidInput where it was cancelled or
    has spent more than the new budget. Nothing is written then.
    """
    created = create_study(db, spec, versions)
    if created is not None:
        return created, Launched.CREATED
    with db.transaction():
        study = _locked(db, spec.name)
        _check_contents(study, spec)
        updated = study.budget != spec.budget
        if updated:
            _write_budget(db, study, spec.budget)
        # One that was paused or told to stop goes on in any case: where nothing is left, a worker finds so and ends it.
        if not study.state.ended or goes_on(spec.budget, study.epochs, spent(db, study.study_id)):
            _write_state(db, study, StudyState.RUNNING)
    return get_study(db, spec.name), Launched.BUDGET_UPDATED if updated else Launched.RESUMED


def check_launch(db: Database, spec: StudySpec) -> None:
    """Raises what `launch_study` would raise now, and writes nothing: for those who launch several or none."""
    study = _found(db, spec.name)
    if study is not None:
        _check_contents(study, spec)
        if study.budget != spec.budget:  # seconds may have overshot the present one
            _check_budget(db, study, spec.budget)


def get_study(db: Database, name: str) -> StudyRecord:
    """Raises NotFound, with a name that is nearly the same if there is one."""
    rows = db.execute(sql.GET, name=name)
    if rows:
        return _record(rows[0])
    names = [row.study_name for row in db.execute(sql.NAMES)]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`tuner study list` shows those that exist"
    raise NotFound(f"no study {name!r}; {hint}")


def running_studies(db: Database) -> list[StudyRecord]:
    """Those that give out trials, the oldest first."""
    return [_record(row) for row in db.execute(sql.RUNNING)]


def list_studies(db: Database) -> list[StudySummary]:
    """All studies, the newest last, in one statement."""
    return [
        StudySummary(
            study_id=row.study_id,
            name=row.study_name,
            state=StudyState(row.state),
            trials={state: (row.trials or {}).get(state.value, 0) for state in TrialState},
            budget=BudgetConfig.model_validate(row.budget),
            metric=row.metric,
            best_value=row.best_value,
            best_number=row.best_number,
            workers=row.workers,
            epochs=row.epochs,
            seconds=row.seconds,
            created_at=row.created_at,
            ended_at=row.ended_at,
        )
        for row in db.execute(sql.LIST)
    ]


def spent(db: Database, study_id: int) -> Spent:
    """What a study has used of its budget."""
    (row,) = db.execute(sql.SPENT, study=study_id)
    return Spent(
        trials=row.trials,
        open=row.open,
        epochs=row.epochs,
        reserved_epochs=row.reserved_epochs,
        seconds=row.seconds,
    )


def goes_on(budget: BudgetConfig, epochs: int, used: Spent) -> bool:
    """Whether there is a trial to end, or one of so many epochs to begin within the budget."""
    return used.open > 0 or (
        (budget.trials is None or used.trials < budget.trials)
        and (budget.total_epochs is None or used.reserved_epochs + epochs <= budget.total_epochs)
        and (budget.seconds is None or used.seconds < budget.seconds)
    )


def set_state(db: Database, name: str, state: StudyState) -> StudyRecord:
    """Pauses, resumes, stops or cancels; asking for the present state changes nothing.

    Raises NotFound, or InvalidInput where a study in its state cannot get there.
    """
    with db.transaction():
        study = _locked(db, name)
        if state is not study.state:
            if state not in TRANSITIONS[study.state]:
                raise InvalidInput(f"study {name!r} is {study.state}: it cannot become {state}")
            if study.state is StudyState.FINISHED and not goes_on(
                study.budget, study.epochs, spent(db, study.study_id)
            ):
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
        study = _locked(db, name)
        _write_budget(db, study, budget)
        if study.state is StudyState.FINISHED and goes_on(budget, study.epochs, spent(db, study.study_id)):
            _write_state(db, study, StudyState.RUNNING)
    return get_study(db, name)


def delete_study(db: Database, name: str) -> StudyRecord:
    """Removes a study with all its trials, in one transaction; workers end what they train of it.

    Its files stay: see `artifacts.remove_study`. Raises NotFound.
    """
    study = get_study(db, name)
    db.execute(sql.DELETE, study=study.study_id)
    return study


def _locked(db: Database, name: str) -> StudyRecord:
    """The study, its row locked until the transaction ends: claims wait."""
    return _found(db, name, " FOR UPDATE OF study") or get_study(db, name)  # which says that it is missing


def _found(db: Database, name: str, lock: str = "") -> StudyRecord | None:
    rows = db.execute(sql.GET + lock, name=name)
    if rows:
        return _record(rows[0])
    if db.execute("SELECT FROM public.studies WHERE study_name = %(name)s", name=name):
        raise InvalidInput(f"study {name!r} in this database was made by another program; give another --name")
    return None


def _record(row: Row) -> StudyRecord:
    return StudyRecord(
        study_id=row.study_id,
        name=row.study_name,
        folder=str(row.folder),
        document=row.document,
        budget=BudgetConfig.model_validate(row.budget),
        epochs=row.epochs,
        state=StudyState(row.state),
        versions=row.versions,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def _check_contents(study: StudyRecord, spec: StudySpec) -> None:
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
        ("total_epochs", budget.total_epochs, used.epochs, "epochs were trained"),
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
