"""Errors that a user can cause, and the exit code of each.

    TunerError                  1
    ├── InvalidInput            2
    │   ├── InvalidSpec
    │   └── StudyChanged
    ├── NotFound                3
    ├── DatabaseError           4
    │   └── DatabaseLost
    ├── DataError               5
    ├── ArtifactError           6
    ├── WorkersFailed           7
    ├── WorkerUnfit             8
    └── TooManyFailures         9

`tuner --help` lists the codes with the first line of each class. Exit code 130 means interrupted.
Everything else that escapes is a bug and shows its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class TunerError(Exception):
    """Something failed; the message says what."""

    exit_code: ClassVar[int] = 1


class InvalidInput(TunerError):
    """A file, an option or a value is wrong; nothing was changed."""

    exit_code = 2


class InvalidSpec(InvalidInput):
    """A study file with faults; `str()` is one line per fault."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class StudyChanged(InvalidInput):
    """A study of that name exists with other contents; the message holds the difference."""


class NotFound(TunerError):
    """No study, trial, comparison or data set of that name."""

    exit_code = 3


class DatabaseError(TunerError):
    """The database is unreachable, refuses us, is too old or is not ours."""

    exit_code = 4


class DatabaseLost(DatabaseError):
    """The connection broke in the middle: the statement may or may not have been committed."""


class DataError(TunerError):
    """A data set is missing, damaged or unusable."""

    exit_code = 5


class ArtifactError(TunerError):
    """Checkpoints or logs cannot be written or read (disk full, not writable)."""

    exit_code = 6


class WorkersFailed(TunerError):
    """The workers ended before the study did."""

    exit_code = 7


class WorkerUnfit(TunerError):
    """Trials only died on a worker: its machine, or the code that they run, is broken."""

    exit_code = 8


class TooManyFailures(TunerError):
    """As many trials failed as the budget allows: the study is paused."""

    exit_code = 9
