from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tuner.errors import InvalidSpec
from tuner.spec.study import StudySpec, read_spec

Read = Callable[..., StudySpec]
Faults = Callable[..., list[str]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads a text as the file study.yaml."""
    monkeypatch.chdir(tmp_path)

    def read_text(text: str, *overrides: str, name: str | None = None) -> StudySpec:
        Path("study.yaml").write_text(dedent(text), encoding="utf-8")
        return read_spec(Path("study.yaml"), overrides, name)

    return read_text


@pytest.fixture
def faults(read: Read) -> Faults:
    """The lines that a text is refused with."""

    def faults_of(text: str, *overrides: str, name: str | None = None) -> list[str]:
        with pytest.raises(InvalidSpec) as refusal:
            read(text, *overrides, name=name)
        return str(refusal.value).splitlines()

    return faults_of
