from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.settings import Settings, read_settings

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An empty home, and no folder of ready data."""
    return read_settings({"TUNER_HOME": str(tmp_path / "home")})


@pytest.fixture
def real_data() -> Path:
    folder = Path(os.environ.get("TUNER_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the real data sets are not here: let TUNER_DATA name their folder")
    return folder


@pytest.fixture
def real_settings(tmp_path: Path, real_data: Path) -> Settings:
    return read_settings({"TUNER_HOME": str(tmp_path / "home"), "TUNER_DATA": str(real_data)})
