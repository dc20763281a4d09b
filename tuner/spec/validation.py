"""All the faults of a study file at once, those between keys as well."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

from tuner.errors import InvalidSpec
from tuner.spec.checks import contradictions
from tuner.spec.explain import explained
from tuner.spec.faults import Fault, Path
from tuner.spec.source import Source
from tuner.spec.study_file import StudyFile

# In the place of what cannot be understood, so that the rest can be checked.
_STAND_INS: dict[str, Any] = {"study": "study", "data": {"name": "digits"}, "model": {"family": "cnn"}}


def validated(source: Source) -> StudyFile:
    """The file with nothing wrong in it. Raises InvalidSpec with every fault.

    A file with faults is mended by leaving out the keys that are wrong, until the rest makes sense and can be checked
    for contradictions. What rests on a key that was left out is no fault.
    """
    document = copy.deepcopy(source.document)
    faults: list[Fault] | None = None
    mended: list[Path] = []
    while True:
        try:
            file = StudyFile.model_validate_json(json.dumps(document)).with_metric()
        except ValidationError as error:
            found = explained(error, document)
            if not found:
                raise  # nothing to mend it by
            faults = found if faults is None else faults  # later ones come of the mending
            mended += _mend(document, found)
        else:
            break
    between = [fault for fault in contradictions(file) if not _rests_on(fault, mended)]
    lines = source.lines([*(faults or ()), *between])
    if lines:
        raise InvalidSpec(lines)
    return file


def _mend(document: dict[str, Any], faults: Sequence[Fault]) -> list[Path]:
    """Leaves out the keys that are wrong, or the ones around them if they are missing; returns what is not known."""
    left_out = [_nearest(document, fault.path) for fault in faults]
    for path in left_out:
        if len(path) == 1 and not _holds(document, path):
            document[path[0]] = _STAND_INS[path[0]]
        elif _holds(document, path):
            around = document
            for step in path[:-1]:
                around = around[step]
            del around[path[-1]]
    return [*left_out, *(path for fault in faults for path in fault.involves)]


def _nearest(document: dict[str, Any], path: Path) -> tuple[str, ...]:
    """The key, or the nearest one around it that is there, outside of lists, whose items cannot be left out."""
    keys = tuple(str(step) for step in takewhile(lambda step: isinstance(step, str), path))
    while len(keys) > 1 and not _holds(document, keys):
        keys = keys[:-1]
    return keys


def _holds(document: Any, path: Iterable[str | int]) -> bool:
    for step in path:
        if not isinstance(document, dict) or step not in document:
            return False
        document = document[step]
    return True


def _rests_on(fault: Fault, mended: Sequence[Path]) -> bool:
    paths = (fault.path, *fault.involves)
    return any(
        path[: len(left_out)] == left_out or left_out[: len(path)] == path for path in paths for left_out in mended
    )
