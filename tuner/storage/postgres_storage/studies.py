"""The studies of PostgresStorage, and their attributes: read when asked for, written at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy

from tuner.storage.connection import Row
from tuner.storage.frozen import parse_attributes
from tuner.storage.postgres_storage import statements as sql
from tuner.storage.postgres_storage.connected import ConnectedStorage

UNNAMED = "no-name-"  # so all of Optuna's storages begin the names that they give


class StudyStorage(ConnectedStorage):
    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        reserved = self._rows(sql.RESERVE_STUDY)[0].study_id
        (made,) = self._rows(
            sql.CREATE_STUDY,
            study=reserved,
            name=f"{UNNAMED}{uuid4()}" if study_name is None else study_name,
            directions=[direction.name for direction in directions],
        )
        if made.study_id != reserved:
            raise DuplicatedStudyError(f"there is a study {study_name!r} already")
        return int(reserved)

    def delete_study(self, study_id: int) -> None:
        self._study(study_id)
        self._rows(sql.DELETE_STUDY, study=study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attribute(sql.SET_STUDY_USER_ATTRIBUTE, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._set_study_attribute(sql.SET_STUDY_SYSTEM_ATTRIBUTE, study_id, key, value)

    def _set_study_attribute(self, statement: str, study_id: int, key: str, value: Any) -> None:
        if not self._rows(statement, study=study_id, key=key, value=json.dumps(value)):
            raise no_study(study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        rows = self._rows(sql.STUDY_ID, name=study_name)
        if not rows:
            raise no_study(study_name)
        return int(rows[0].study_id)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._study(study_id).study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._study(study_id).directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study(study_id).user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study(study_id).system_attrs

    def get_all_studies(self) -> list[FrozenStudy]:
        return [_frozen_study(row) for row in self._rows(sql.STUDIES)]

    def _study(self, study_id: int) -> FrozenStudy:
        rows = self._rows(sql.STUDY, study=study_id)
        if not rows:
            raise no_study(study_id)
        return _frozen_study(rows[0])


def no_study(which: int | str) -> KeyError:
    return KeyError(f"there is no study {which!r}")


def _frozen_study(row: Row) -> FrozenStudy:
    return FrozenStudy(
        study_id=row.study_id,
        study_name=row.study_name,
        direction=None,
        directions=[StudyDirection[direction] for direction in row.directions],
        user_attrs=parse_attributes(row.user_keys, row.user_values),
        system_attrs=parse_attributes(row.system_keys, row.system_values),
    )
