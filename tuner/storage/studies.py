"""Studies: made once, found by name, listed, deleted. What people ask of them stands in `steering`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from tuner import __version__
from tuner.errors import InvalidInput, NotFound
from tuner.spec.config import TrialConfig
from tuner.spec.search import BudgetConfig
from tuner.spec.space import Point
from tuner.spec.stacking import Engine, with_engine
from tuner.spec.study import StudySpec, spec_from_document
from tuner.states import StudyState, TrialState
from tuner.storage import study_statements as sql
from tuner.storage.connection import Database, Row
from tuner.storage.statement_parts import SPENT
from tuner.versions import release


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a study has used of its budget."""

    trials: int  # that were begun, whatever their outcome; numbers that were skipped are not
    open: int  # of these, not ended
    epochs: int  # trained and reported
    reserved_epochs: int  # these, and all that the open trials may still train
    seconds: float  # of training
    affordable: bool  # the budget allows another trial

    @property
    def goes_on(self) -> bool:
        """Whether there is a trial to end, or one to begin."""
        return self.open > 0 or self.affordable


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    study_id: int
    name: str
    folder: str  # of its files, below the artifacts folder
    document: Mapping[str, Any]  # the study file, defaults filled in
    budget: BudgetConfig
    epochs: int  # of a trial
    engine: Engine | None  # that trains it; None: not measured yet
    compared: bool  # it is part of a comparison
    state: StudyState
    reason: str | None  # why it was paused, where no person did it
    versions: Mapping[str, Any]  # of tuner, Python, torch … that made it
    created_at: datetime
    ended_at: datetime | None

    @cached_property
    def spec(self) -> StudySpec:
        return spec_from_document(self.name, self.document)

    def resolve(self, point: Point) -> TrialConfig:
        """The trial that a point stands for, with the engine by which this study is trained.

        Raises KeyError where the point lacks an active parameter.
        """
        config = self.spec.space.resolve(point)
        return config if self.engine is None else with_engine(config, self.engine.name)


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A line of `tuner study list`."""

    study_id: int
    name: str
    state: StudyState
    reason: str | None  # why it was paused, where no person did it
    trials: Mapping[TrialState, int]  # that were begun
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
        engine=asdict(Engine(name="single")) if spec.engine == "single" else None,
        versions=versions,
    )
    return get_study(db, spec.name) if rows else None


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


def settle_engine(db: Database, study_id: int, engine: Engine | None) -> Engine | None:
    """Stores by which engine a study is trained, it and all that it is compared with, unless that is settled.

    Returns what is stored: whoever was first has decided. With None it only takes over what the others have; what it
    returns is then None where nothing is settled.
    """
    rows = db.execute(sql.SETTLE_ENGINE, study=study_id, engine=None if engine is None else asdict(engine))
    if not rows:
        return Engine(name="single")  # the study was deleted: who claims its trials will hear so
    return None if rows[0].engine is None else Engine(**rows[0].engine)


def list_studies(db: Database) -> list[StudySummary]:
    """All studies, the newest last, in one statement."""
    return [
        StudySummary(
            study_id=row.study_id,
            name=row.study_name,
            state=StudyState(row.state),
            reason=row.reason,
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
    """What a study has used of its budget. Raises NotFound."""
    rows = db.execute(SPENT, study=study_id)
    if not rows:
        raise NotFound("the study was deleted just now")
    (row,) = rows
    return Spent(
        trials=row.trials,
        open=row.open,
        epochs=row.epochs,
        reserved_epochs=row.reserved_epochs,
        seconds=row.seconds,
        affordable=row.affordable,
    )


def check_version(study: StudyRecord) -> None:
    """Raises InvalidInput where a study was made by a tuner that may have trained its trials otherwise."""
    made_by = study.versions.get("tuner", __version__)
    if release(made_by) != release(__version__):
        raise InvalidInput(
            f"study {study.name!r} was made by tuner {made_by}, this is {__version__}: its trials would not be the "
            f"same; use a tuner {release(made_by)}, or launch the file again under another --name"
        )


def delete_study(db: Database, name: str) -> StudyRecord:
    """Removes a study with all its trials, in one transaction; workers end what they train of it.

    Its files stay: see `artifacts.remove_study`. Raises NotFound.
    """
    study = get_study(db, name)
    db.execute(sql.DELETE, study=study.study_id)
    return study


def locked_study(db: Database, name: str) -> StudyRecord:
    """The study, its row locked until the transaction ends: claims wait."""
    return find_study(db, name, " FOR UPDATE OF study") or get_study(db, name)  # which says that it is missing


def find_study(db: Database, name: str, lock: str = "") -> StudyRecord | None:
    rows = db.execute(sql.GET + lock, name=name)
    if rows:
        return _record(rows[0])
    if db.execute("SELECT FROM public.studies WHERE study_name = %(name)s", name=name):
        raise InvalidInput(f"study {name!r} in this database was made by another program: tuner does not touch it")
    return None


def _record(row: Row) -> StudyRecord:
    return StudyRecord(
        study_id=row.study_id,
        name=row.study_name,
        folder=str(row.folder),
        document=row.document,
        budget=BudgetConfig.model_validate(row.budget),
        epochs=row.epochs,
        engine=None if row.engine is None else Engine(**row.engine),
        compared=row.compared,
        state=StudyState(row.state),
        reason=row.reason,
        versions=row.versions,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
