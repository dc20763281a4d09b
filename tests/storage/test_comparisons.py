from __future__ import annotations

import pytest

from tuner.errors import InvalidInput, NotFound
from tuner.storage.comparisons import (
    Member,
    add_member,
    delete_comparison,
    get_comparison,
    list_comparisons,
    save_comparison,
)
from tuner.storage.connection import Database
from tuner.storage.studies import delete_study


def make_study(db: Database, name: str) -> int:
    (row,) = db.execute(
        "WITH made AS (INSERT INTO public.studies (study_name) VALUES (%(name)s) RETURNING study_id) "
        "INSERT INTO tuner.study (study_id, document, budget, epochs, versions) "
        "SELECT study_id, '{}', '{}', 1, '{}' FROM made RETURNING study_id",
        name=name,
    )
    return int(row.study_id)


def test_a_comparison_keeps_its_members_in_order(db: Database) -> None:
    comparison = save_comparison(db, "trio", {"methods": ["grid", "tpe"], "seeds": 1})
    assert comparison.members == ()
    ids = {method: make_study(db, f"trio-{method}-0") for method in ("grid", "tpe")}
    for method in ("tpe", "grid", "tpe"):  # again, as after a crash
        add_member(db, comparison, study_id=ids[method], method=method, seed=0)
    found = get_comparison(db, "trio")
    assert found.document == {"methods": ["grid", "tpe"], "seeds": 1}
    assert found.members == (
        Member(study="trio-grid-0", study_id=ids["grid"], method="grid", seed=0),
        Member(study="trio-tpe-0", study_id=ids["tpe"], method="tpe", seed=0),
    )
    assert list_comparisons(db) == [found]


def test_the_same_comparison_is_found_again_and_another_refused(db: Database) -> None:
    add_member(db, save_comparison(db, "trio", {"seeds": 1}), study_id=make_study(db, "s"), method="tpe", seed=0)
    first = get_comparison(db, "trio")
    assert save_comparison(db, "trio", {"seeds": 1}) == first
    with pytest.raises(InvalidInput, match="other contents"):
        save_comparison(db, "trio", {"seeds": 2})
    assert get_comparison(db, "trio") == first


def test_one_whose_studies_were_deleted_is_made_anew(db: Database) -> None:
    add_member(db, save_comparison(db, "trio", {"seeds": 1}), study_id=make_study(db, "s"), method="tpe", seed=0)
    delete_study(db, "s")
    assert save_comparison(db, "trio", {"seeds": 2}).document == {"seeds": 2}


def test_deleting_takes_its_studies_along_and_no_others(db: Database) -> None:
    for name in ("trio", "duo"):
        add_member(db, save_comparison(db, name, {}), study_id=make_study(db, f"{name}.tpe.0"), method="tpe", seed=0)
    assert [study.name for study in delete_comparison(db, "trio")] == ["trio.tpe.0"]
    assert [comparison.name for comparison in list_comparisons(db)] == ["duo"]
    assert [row.study_name for row in db.execute("SELECT study_name FROM public.studies")] == ["duo.tpe.0"]
    with pytest.raises(NotFound):
        delete_comparison(db, "trio")


def test_a_misspelt_name_is_told_the_right_one(db: Database) -> None:
    with pytest.raises(NotFound, match="tuner comparison list"):
        get_comparison(db, "trio")
    save_comparison(db, "trio", {})
    with pytest.raises(NotFound, match="did you mean 'trio'"):
        get_comparison(db, "tri")
