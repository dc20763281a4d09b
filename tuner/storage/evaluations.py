"""The log of a study's test part: each time that it was opened, for which trial, with which scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tuner.storage.connection import Database


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    number: int  # of the trial whose weights were scored
    opened_at: datetime
    scores: Mapping[str, float | None]  # metric of the test part -> value; None: not a number


def log_evaluation(db: Database, study_id: int, number: int, scores: Mapping[str, float]) -> None:
    """Records that the test part was opened."""
    db.execute(
        "INSERT INTO tuner.evaluation (study_id, number, scores) VALUES (%(study)s, %(number)s, %(scores)s)",
        study=study_id,
        number=number,
        scores=scores,
    )


def list_evaluations(db: Database, study_id: int) -> list[Evaluation]:
    """All openings of a study's test part, the first one first."""
    rows = db.execute(
        "SELECT number, opened_at, scores FROM tuner.evaluation WHERE study_id = %(study)s ORDER BY evaluation_id",
        study=study_id,
    )
    return [Evaluation(number=row.number, opened_at=row.opened_at, scores=row.scores) for row in rows]
