"""The environment, read once into a frozen record.

Precedence everywhere: command line > environment > study file > default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    home: Path  # TUNER_HOME: embedded server, data cache, artifacts
    artifacts: Path  # TUNER_ARTIFACTS: checkpoints and logs, a folder that all workers share
    data: Path | None  # TUNER_DATA: a folder of ready data sets, looked at before the network
    database_url: str | None  # TUNER_DATABASE_URL: a PostgreSQL instead of the embedded one

    @property
    def server(self) -> Path:
        """Folder of the embedded PostgreSQL."""
        return self.home / "postgres"

    @property
    def cache(self) -> Path:
        """Folder of prepared data sets."""
        return self.home / "data"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    home = _folder(environment.get("TUNER_HOME")) or _default_home()
    return Settings(
        home=home,
        artifacts=_folder(environment.get("TUNER_ARTIFACTS")) or home / "artifacts",
        data=_folder(environment.get("TUNER_DATA")),
        database_url=environment.get("TUNER_DATABASE_URL") or None,
    )


def _folder(value: str | None) -> Path | None:
    return Path(value).expanduser().absolute() if value else None


def _default_home() -> Path:
    import platformdirs  # imported late: `tuner --help` must not pay for it

    return Path(platformdirs.user_data_dir("tuner"))
