"""Triggers that write down who writes what, so that a write by somebody without the right to it shows in the rows.

A writer is known by the `application_name` in its database URL. Stubs whose values name their attempt
(`Behaviour.value_names_attempt`) are told apart even within one worker.
"""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.harness import Arena
from tuner.storage.url import parse

_INSTALL = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.worker (worker_id uuid PRIMARY KEY, tag text NOT NULL);
CREATE TABLE chaos.written (
    relation text NOT NULL,
    trial_id int NOT NULL,
    tag      text NOT NULL,     -- who wrote
    holder   uuid,              -- who had the right to
    attempt  int,               -- that held the trial
    named    int                -- attempt that the written value, or path, names
);
CREATE TABLE chaos.stolen (trial_id int NOT NULL, lease_until timestamptz);

CREATE FUNCTION chaos.register() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos.worker VALUES (NEW.worker_id, current_setting('application_name')) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER INSERT ON tuner.worker FOR EACH ROW EXECUTE FUNCTION chaos.register();

CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos.written
    SELECT TG_TABLE_NAME, lease.trial_id, current_setting('application_name'), lease.worker_id, lease.attempt,
        CASE TG_TABLE_NAME WHEN 'trial_intermediate_values' THEN floor((to_jsonb(NEW)->>'intermediate_value')::float8)
        END
    FROM tuner.lease WHERE lease.trial_id = NEW.trial_id;
    RETURN NULL;
END $$;
{triggers}

CREATE FUNCTION chaos.note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.attempt <> OLD.attempt THEN
        IF OLD.lease_until > clock_timestamp() THEN
            INSERT INTO chaos.stolen VALUES (NEW.trial_id, OLD.lease_until);
        END IF;
    ELSE
        INSERT INTO chaos.written VALUES (
            'lease', NEW.trial_id, current_setting('application_name'), OLD.worker_id, OLD.attempt,
            CASE WHEN NEW.checkpoint IS DISTINCT FROM OLD.checkpoint THEN split_part(NEW.checkpoint, '/', 3)::int END
        );
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER UPDATE ON tuner.lease FOR EACH ROW EXECUTE FUNCTION chaos.note_lease()
"""
_TABLES = (
    "trials",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)
_TRIGGER = "CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION chaos.note();"


def install(arena: Arena) -> None:
    arena.db.execute(_INSTALL.format(triggers="\n".join(_TRIGGER.format(table) for table in _TABLES)))


def tagged(url: str, tag: str) -> str:
    """The URL for one worker."""
    address = parse(url)
    return replace(address, options={**address.options, "application_name": tag}).url


def assert_only_holders_wrote(arena: Arena) -> int:
    """No write came from a worker, or an attempt, that did not hold the trial; returns how many there were."""
    foreign = arena.rows(
        """
        SELECT relation, count(*) FROM chaos.written LEFT JOIN chaos.worker ON worker_id = holder
        WHERE written.tag IS DISTINCT FROM worker.tag OR named <> attempt GROUP BY relation"""
    )
    assert foreign == []
    assert arena.rows("SELECT * FROM chaos.stolen") == []
    return int(arena.number("SELECT count(*) FROM chaos.written"))
