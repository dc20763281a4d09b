from __future__ import annotations

import gc
import importlib.util
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

TABLES = {"study", "worker", "lease", "attempt", "pulse", "comparison", "comparison_study", "evaluation"}


def tables(db: Database, schema: str) -> set[str]:
    rows = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %(schema)s", schema=schema)
    return {row.tablename for row in rows}


FIRST_RELEASE = """
INSERT INTO public.studies (study_id, study_name) VALUES (1, 'old');
INSERT INTO public.trials (trial_id, number, study_id, state) VALUES (1, 0, 1, 'COMPLETE'), (2, 1, 1, 'RUNNING');
INSERT INTO tuner.study (study_id, document, budget, epochs, versions, finished_trials)
VALUES (1, '{}', '{"trials": 5}', 10, '{}', 1);
INSERT INTO tuner.lease
    (trial_id, study_id, number, attempt, lease_until, epoch, started_at, seconds, outcome, finish_seq)
VALUES (1, 1, 0, 2, NULL, 7, now(), 2.5, 'complete', 1), (2, 1, 1, 1, now() + interval '30 s', 3, now(), 0, NULL, NULL);
"""


def downgrade_to_first(db: Database) -> None:
    """The tables as revision 0001 makes them."""
    first = importlib.util.spec_from_file_location("first", MIGRATIONS / "versions" / "0001_tables.py")
    assert first is not None
    assert first.loader is not None
    module = importlib.util.module_from_spec(first)
    first.loader.exec_module(module)
    db.execute("DROP SCHEMA tuner CASCADE; CREATE SCHEMA tuner")
    db.execute(module.TABLES)
    db.execute("CREATE TABLE tuner.alembic_version (version_num varchar(32) PRIMARY KEY)")
    db.execute("INSERT INTO tuner.alembic_version VALUES ('0001')")


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


def test_rows_of_the_first_release_are_taken_over(empty_database_url: str) -> None:
    """An upgrade in the middle of a study: what was spent, who holds what, which attempts there were."""
    ensure_schema(empty_database_url)
    with Database(empty_database_url) as db:
        downgrade_to_first(db)
        db.execute(FIRST_RELEASE)
        ensure_schema(empty_database_url)
        (study,) = db.execute("SELECT last_finish_seq, finished_epochs, finished_seconds FROM tuner.study")
        assert (study.last_finish_seq, study.finished_epochs, study.finished_seconds) == (1, 7, 2.5)
        attempts = db.execute("SELECT attempt, ended, ended_at IS NULL AS runs FROM tuner.attempt ORDER BY trial_id")
        assert [(row.attempt, row.ended, row.runs) for row in attempts] == [(2, "complete", False), (1, None, True)]


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
