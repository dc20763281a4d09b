from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
import sqlalchemy
from alembic.script import ScriptDirectory

from tuner.errors import DatabaseError
from tuner.storage.connection import Database
from tuner.storage.optuna_storage import load_study, optuna_storage
from tuner.storage.schema import MIGRATIONS, check_schema, ensure_schema, revisions, upgrade_schema
from tuner.storage.url import parse

ENSURE = """
import sys
from tuner.storage.schema import ensure_schema
ensure_schema(sys.argv[1])
"""

TABLES = {"study", "worker", "lease", "comparison", "comparison_study", "evaluation"}


def tables(db: Database, schema: str) -> set[str]:
    rows = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %(schema)s", schema=schema)
    return {row.tablename for row in rows}


def test_from_empty_to_current_and_again(empty_database_url: str) -> None:
    with Database(empty_database_url) as db:
        with pytest.raises(DatabaseError, match="tuner db upgrade"):
            check_schema(db)
        ensure_schema(empty_database_url)
        check_schema(db)
        assert tables(db, "tuner") == TABLES | {"alembic_version"}
        assert {"studies", "trials", "alembic_version"} <= tables(db, "public")
        ensure_schema(empty_database_url)
        upgrade_schema(empty_database_url)
        check_schema(db)


def test_forty_first_launches_at_once(empty_database_url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", ENSURE, empty_database_url]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(40)]
    assert [racer.communicate(timeout=200)[0].decode() for racer in racers] == [""] * 40
    assert [racer.returncode for racer in racers] == [0] * 40


def test_an_optuna_database_in_use_is_taken_over_unharmed(empty_database_url: str) -> None:
    study = optuna.create_study(study_name="old", storage=empty_database_url)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    ensure_schema(empty_database_url)
    assert len(load_study("old", empty_database_url).trials) == 2


def test_tables_of_a_newer_tuner_are_left_alone(db: Database, database_url: str) -> None:
    db.execute("UPDATE tuner.alembic_version SET version_num = '9999'")
    for call in (ensure_schema, upgrade_schema):
        with pytest.raises(DatabaseError, match="newer tuner"):
            call(database_url)
    with pytest.raises(DatabaseError, match="newer tuner"):
        check_schema(db)


def test_tables_of_another_optuna_are_said_and_upgraded(empty_database_url: str) -> None:
    with Database(empty_database_url) as db:
        ensure_schema(empty_database_url)
        db.execute("UPDATE public.alembic_version SET version_num = 'v3.0.0.d'")
        with pytest.raises(DatabaseError, match="tuner db upgrade"):
            optuna_storage(empty_database_url)
        upgrade_schema(empty_database_url)
        assert optuna_storage(empty_database_url).get_all_studies() == []


def test_a_user_without_rights_is_said(empty_database_url: str) -> None:
    with Database(empty_database_url) as db:
        db.execute("CREATE ROLE reader LOGIN")
        try:
            with pytest.raises(DatabaseError, match="permission denied") as caught:
                ensure_schema(replace(parse(empty_database_url), user="reader").url)
            assert "\n" not in str(caught.value)
        finally:
            db.execute("DROP ROLE reader")


def test_clients_of_the_user_tuner_find_optunas_tables(empty_database_url: str) -> None:
    """By "$user" in the search path they would look in our schema, and make Optuna's tables there again."""
    ensure_schema(empty_database_url)
    optuna.create_study(study_name="outside", storage=empty_database_url)
    with Database(empty_database_url) as db:
        assert tables(db, "tuner") == TABLES | {"alembic_version"}
        assert db.execute("SELECT study_name FROM public.studies")[0].study_name == "outside"


def test_file_names_give_the_revisions_that_alembic_reads() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(revisions())
    assert scripts.get_current_head() == revisions()[-1]


def engines() -> list[sqlalchemy.Engine]:
    # Not isinstance: that asks every object, and some of torch warn when they are asked.
    return [item for item in gc.get_objects() if issubclass(type(item), sqlalchemy.Engine)]


def test_no_password_in_what_optunas_storage_shows(password_server: Callable[[str | None], str]) -> None:
    url = password_server("right@1")
    others = engines()  # of other tests
    ensure_schema(url)
    storage = optuna_storage(url)
    assert storage.get_all_studies() == []
    made = [engine for engine in engines() if not any(engine is other for other in others)]
    assert any(engine.url.drivername == "postgresql+psycopg2" for engine in made)
    assert "right" not in " ".join(f"{engine!r} {engine.url.render_as_string(hide_password=False)}" for engine in made)
    with pytest.raises(DatabaseError) as caught:
        ensure_schema(password_server("c4n4ry"))
    assert "c4n4ry" not in str(caught.value)
