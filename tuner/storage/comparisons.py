"""Comparisons: the same study file searched by several methods over several seeds, each an ordinary study."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuner.errors import InvalidInput, NotFound, StudyChanged
from tuner.spec.diff import difference
from tuner.spec.search import Method
from tuner.spec.study import StudySpec
from tuner.storage.connection import Database
from tuner.storage.steering import check_launch, launch_study
from tuner.storage.studies import StudyRecord, delete_study


@dataclass(frozen=True, kw_only=True)
class Member:
    """A study's part in a comparison."""

    study: str
    study_id: int
    method: Method
    seed: int


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord:
    comparison_id: int
    name: str
    document: Mapping[str, Any]  # what is compared: the caller's own record
    members: tuple[Member, ...]
    created_at: datetime


# One whose studies were all deleted keeps its name from nobody.
_SAVE = """
INSERT INTO tuner.comparison (name, document) VALUES (%(name)s, %(document)s)
ON CONFLICT (name) DO UPDATE SET document = excluded.document
WHERE NOT EXISTS (SELECT FROM tuner.comparison_study WHERE comparison_id = comparison.comparison_id)"""

_OTHER = """
SELECT document FROM tuner.comparison
WHERE name = %(name)s AND document <> %(document)s::jsonb
    AND EXISTS (SELECT FROM tuner.comparison_study WHERE comparison_id = comparison.comparison_id)"""

_ADD = """
INSERT INTO tuner.comparison_study (comparison_id, study_id, method, seed)
VALUES (%(comparison)s, %(study)s, %(method)s, %(seed)s) ON CONFLICT DO NOTHING"""

_LIST = """
SELECT comparison.*, coalesce((
    SELECT jsonb_agg(jsonb_build_object(
        'study', studies.study_name, 'study_id', study_id, 'method', method, 'seed', seed) ORDER BY study_id)
    FROM tuner.comparison_study JOIN public.studies USING (study_id)
    WHERE comparison_study.comparison_id = comparison.comparison_id
), '[]') AS members
FROM tuner.comparison WHERE %(name)s IS NULL OR name = %(name)s ORDER BY created_at, comparison_id"""

_DELETE = "DELETE FROM tuner.comparison WHERE comparison_id = %(comparison)s"


def launch_comparison(
    db: Database, name: str, document: Mapping[str, Any], specs: Sequence[StudySpec], versions: Mapping[str, Any]
) -> ComparisonRecord:
    """Makes a comparison with its studies, or goes on with the one of that name; nothing that is there is made anew.

    Raises StudyChanged where the one of that name has another document, and InvalidInput where a study cannot be
    launched. Nothing is written then.
    """
    _refuse_changed(db, name, document)
    for spec in specs:
        try:
            check_launch(db, spec)
        except StudyChanged as error:
            raise InvalidInput(f"another study is named {spec.name!r}; give the comparison another --name") from error
    comparison = save_comparison(db, name, document)
    for spec in specs:
        study, _ = launch_study(db, spec, versions)
        add_member(db, comparison, study_id=study.study_id, method=spec.search.method, seed=spec.search.seed)
    return get_comparison(db, name)


def save_comparison(db: Database, name: str, document: Mapping[str, Any]) -> ComparisonRecord:
    """Makes a comparison, or finds the one of that name with the same document; one without studies is made anew.

    Raises StudyChanged where the one of that name has studies and another document.
    """
    db.execute(_SAVE, name=name, document=document)
    _refuse_changed(db, name, document)
    return get_comparison(db, name)


def _refuse_changed(db: Database, name: str, document: Mapping[str, Any]) -> None:
    for row in db.execute(_OTHER, name=name, document=document):
        lines = difference(row.document, document)
        first = f"comparison {name!r} exists with other contents; give this one another name: --name {name}-2"
        raise StudyChanged("\n".join([first, *(f"  {line}" for line in lines)]))


def add_member(db: Database, comparison: ComparisonRecord, *, study_id: int, method: str, seed: int) -> None:
    """Puts a study into a comparison; may be repeated."""
    db.execute(_ADD, comparison=comparison.comparison_id, study=study_id, method=method, seed=seed)


def delete_comparison(db: Database, name: str) -> list[StudyRecord]:
    """Removes a comparison and its studies, in one transaction; workers end what they train of them.

    The studies' files stay: see `artifacts.remove_study`. Raises NotFound.
    """
    with db.transaction():
        comparison = get_comparison(db, name)
        db.execute(_DELETE, comparison=comparison.comparison_id)
        return [delete_study(db, member.study) for member in comparison.members]


def get_comparison(db: Database, name: str) -> ComparisonRecord:
    """Raises NotFound, with a name that is nearly the same if there is one."""
    for comparison in list_comparisons(db, name):
        return comparison
    near = difflib.get_close_matches(name, [comparison.name for comparison in list_comparisons(db)], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`tuner comparison list` shows those that exist"
    raise NotFound(f"no comparison {name!r}; {hint}")


def list_comparisons(db: Database, name: str | None = None) -> list[ComparisonRecord]:
    """All comparisons, or the one of that name if there is one; the newest last."""
    return [
        ComparisonRecord(
            comparison_id=row.comparison_id,
            name=row.name,
            document=row.document,
            members=tuple(Member(**member) for member in row.members),
            created_at=row.created_at,
        )
        for row in db.execute(_LIST, name=name)
    ]
