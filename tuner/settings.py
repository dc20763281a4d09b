"""The environment, read once into a frozen record.

Precedence everywhere: command line > environment > study file > default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import InvalidInput

DEFAULT_LEASE_SECONDS = 30.0
DEFAULT_HEARTBEAT_SECONDS = 5.0
HEARTBEATS_A_LEASE = 4  # at least: half a lease may pass unheard while the database is away


@dataclass(frozen=True, kw_only=True)
class Settings:
    home: Path  # TUNER_HOME: embedded server, data cache, artifacts
    artifacts: Path  # TUNER_ARTIFACTS: checkpoints and logs, a folder that all workers share; workers' own logs
    artifact_url: str | None  # TUNER_ARTIFACTS where it is a URL: checkpoints and logs, instead of in the folder
    data: Path | None  # TUNER_DATA: a folder of ready data sets, looked at before the network
    database_url: str | None  # TUNER_DATABASE_URL: a PostgreSQL instead of the embedded one
    data_memory: int | None = None  # bytes, TUNER_DATA_MEMORY_MB: larger parts of data sets are streamed
    lease_seconds: float = DEFAULT_LEASE_SECONDS  # TUNER_LEASE_SECONDS: so long silent, a worker loses its trials
    heartbeat_seconds: float = DEFAULT_HEARTBEAT_SECONDS  # TUNER_HEARTBEAT_SECONDS: a worker's signs of life

    @property
    def server(self) -> Path:
        """Folder of the embedded PostgreSQL."""
        return self.home / "postgres"

    @property
    def cache(self) -> Path:
        """Folder of prepared data sets."""
        return self.home / "data"

    @property
    def scratch(self) -> Path:
        """Folder of what is on its way to an object store, or comes from there."""
        return self.home / "scratch"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises InvalidInput for what is no number, and for times that no worker can live by."""
    home = _folder(environment.get("TUNER_HOME")) or _default_home()
    lease = _number(environment, "TUNER_LEASE_SECONDS", "seconds", 30) or DEFAULT_LEASE_SECONDS
    heartbeat = _number(environment, "TUNER_HEARTBEAT_SECONDS", "seconds", 5) or DEFAULT_HEARTBEAT_SECONDS
    if lease < HEARTBEATS_A_LEASE * heartbeat:
        raise InvalidInput(
            f"TUNER_LEASE_SECONDS: {lease:g} is too short for a heartbeat every {heartbeat:g} s; "
            f"at least {HEARTBEATS_A_LEASE * heartbeat:g}, or a smaller TUNER_HEARTBEAT_SECONDS"
        )
    megabytes = _number(environment, "TUNER_DATA_MEMORY_MB", "megabytes", 4096)
    place = environment.get("TUNER_ARTIFACTS")
    url = place if place and "://" in place else None
    return Settings(
        home=home,
        artifacts=_folder(None if url else place) or home / "artifacts",
        artifact_url=url,
        data=_folder(environment.get("TUNER_DATA")),
        database_url=environment.get("TUNER_DATABASE_URL") or None,
        data_memory=int(megabytes * 2**20) if megabytes else None,
        lease_seconds=lease,
        heartbeat_seconds=heartbeat,
    )


def _number(environment: Mapping[str, str], name: str, unit: str, example: float) -> float | None:
    """A variable's value; None where it is not set, or empty."""
    value = environment.get(name)
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise InvalidInput(f"{name}: {value!r} is not a number of {unit} above 0, as {example:g} is")
    return number


def _folder(value: str | None) -> Path | None:
    return Path(value).expanduser().absolute() if value else None


def _default_home() -> Path:
    import platformdirs  # imported late: `tuner --help` must not pay for it

    return Path(platformdirs.user_data_dir("tuner"))
