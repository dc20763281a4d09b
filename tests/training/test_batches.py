from __future__ import annotations

import pytest

from tests.training.conftest import CPU
from tuner.errors import InvalidInput
from tuner.training.batches import data_memory
from tuner.training.machine import total_memory


def test_data_gets_a_share_or_what_the_operator_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNER_DATA_MEMORY_MB", raising=False)
    assert data_memory(CPU) == (total_memory() or 0) / 2
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", "100")
    assert data_memory(CPU) == 100 * 2**20


@pytest.mark.parametrize("value", ["much", "0", "-1", "inf", "4GB"])
def test_a_setting_that_is_no_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_DATA_MEMORY_MB", value)
    with pytest.raises(InvalidInput, match=f"TUNER_DATA_MEMORY_MB: '{value}' is not a number of megabytes above 0"):
        data_memory(CPU)
