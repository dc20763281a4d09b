"""A row of Optuna's `trials` as the FrozenTrial that Optuna makes of it: what to select, and how to read it."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from tuner.storage.connection import Row

# Marks a trial as made by one request, so that a repeated one does not make another; nobody's attribute.
REQUEST_KEY = "tuner:request"

_FLOAT = """CASE {kind} WHEN 'INF_POS' THEN float8 'Infinity' WHEN 'INF_NEG' THEN float8 '-Infinity'
    WHEN 'FINITE' THEN {value} ELSE float8 'NaN' END"""
_OBJECTIVE = _FLOAT.format(kind="value_type::text", value="value")
_REPORTED = _FLOAT.format(kind="intermediate_value_type::text", value="intermediate_value")

# SELECT {COLUMNS} FROM trials {DETAILS} …: one row a trial. Arrays, for nothing else is read as fast; attributes stay
# text, since Optuna writes NaN into them, which is no JSON to PostgreSQL.
COLUMNS = """trials.trial_id, trials.number, trials.state::text, trials.datetime_start, trials.datetime_complete,
    objective.*, param.*, curve.*, user_attribute.*, system_attribute.*"""
DETAILS = f"""
CROSS JOIN LATERAL (
    SELECT array_agg({_OBJECTIVE} ORDER BY objective) AS objectives
    FROM trial_values WHERE trial_values.trial_id = trials.trial_id
) AS objective
CROSS JOIN LATERAL (
    SELECT array_agg(param_name ORDER BY param_id) AS param_names,
        array_agg(param_value ORDER BY param_id) AS param_values,
        array_agg(distribution_json ORDER BY param_id) AS distributions
    FROM trial_params WHERE trial_params.trial_id = trials.trial_id
) AS param
CROSS JOIN LATERAL (
    SELECT array_agg(step ORDER BY step) AS steps, array_agg({_REPORTED} ORDER BY step) AS reported
    FROM trial_intermediate_values AS reported WHERE reported.trial_id = trials.trial_id
) AS curve
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS user_keys, array_agg(value_json) AS user_values
    FROM trial_user_attributes AS attribute WHERE attribute.trial_id = trials.trial_id
) AS user_attribute
CROSS JOIN LATERAL (
    SELECT array_agg(key) AS system_keys, array_agg(value_json) AS system_values
    FROM trial_system_attributes AS attribute
    WHERE attribute.trial_id = trials.trial_id AND key <> '{REQUEST_KEY}'
) AS system_attribute"""


def frozen_trial(row: Row) -> FrozenTrial:
    """A row of COLUMNS; its times are local and naive, as Optuna's own storages give them."""
    distributions = dict(zip(row.param_names or (), map(parse_distribution, row.distributions or ()), strict=True))
    return FrozenTrial(
        trial_id=row.trial_id,
        number=row.number,
        state=TrialState[row.state],
        value=None,
        values=row.objectives,
        datetime_start=local_time(row.datetime_start),
        datetime_complete=local_time(row.datetime_complete),
        params={
            name: distribution.to_external_repr(value)
            for (name, distribution), value in zip(distributions.items(), row.param_values or (), strict=True)
        },
        distributions=distributions,
        user_attrs=parse_attributes(row.user_keys, row.user_values),
        system_attrs=parse_attributes(row.system_keys, row.system_values),
        intermediate_values=dict(zip(row.steps or (), row.reported or (), strict=True)),
    )


@functools.lru_cache(maxsize=4096)
def parse_distribution(text: str) -> BaseDistribution:
    """Parsed once: a study has few, and parsing is slow."""
    return json_to_distribution(text)


def parse_attributes(keys: list[str] | None, values: list[str] | None) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in zip(keys or (), values or (), strict=True)}


def local_time(stored: datetime | None) -> datetime | None:
    """Optuna stores UTC without saying so, and shows local time."""
    return stored.replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if stored else None


def stored_time(local: datetime | None) -> datetime | None:
    return local.astimezone(UTC).replace(tzinfo=None) if local else None
