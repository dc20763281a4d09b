"""Saying in a user's words what pydantic found wrong with a study file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuner.spec.config import Record
from tuner.spec.faults import Fault, Path, did_you_mean, dotted, flow, one_of, printable, shown
from tuner.spec.knobs import ChoicesKnob, RangeKnob, ValueKnob
from tuner.spec.study_file import STUDY_NAME_RULE, StudyFile

_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_MAPPING = "a mapping"
_KINDS = {
    "int_type": ("a whole number", "write one, such as 32"),
    "float_type": ("a number", "write one, such as 0.001"),
    "bool_type": ("true or false", "write true or false"),
    "string_type": ("text", "write a word, or put it in quotes"),
    "tuple_type": ("a list", "write [...]"),
    "dict_type": (_MAPPING, "write {key: value, ...}"),
    "model_type": (_MAPPING, "write {key: value, ...}"),
    "model_attributes_type": (_MAPPING, "write {key: value, ...}"),
}
_SHAPES = {
    "<range>": "has no range; list its values: {choices: [...]}",
    "<layers>": "has one value, not a list; to search among several: {choices: [...]}",
    "<cases>": "cases stand in one list, not in lists of lists",
    "<fixed>": "is not a case; a case is a mapping with its condition: {..., when: {training.optimizer: sgd}}",
}

# What to write where a key is missing, and where it stands but holds no mapping.
_MAPPINGS = {
    "data": "name the data set (data: {name: digits})",
    "model": "name a family (model: {family: cnn})",
    "search": "name the method (search: {method: tpe})",
    "budget": "name what is limited (budget: {trials: 40})",
    "when": "name a knob and its value (when: {training.optimizer: sgd})",
    "pruner": "name one (pruner: {name: median})",
}
_MISSING = _MAPPINGS | {
    "study": "name the study (study: digits-cnn)",
    "low": "a range has low and high",
    "high": "a range has low and high",
    "choices": "list the values: {choices: [...]}",
    "value": "give the value",
    "when": "a value that always holds is written without a mapping",
}
_OTHER_WORDS = {"min": "low", "max": "high", "values": "choices"}  # of other programs
_FORMS = {ValueKnob.tag: "value", ChoicesKnob.tag: "choices", RangeKnob.tag: "a range"}

Location = tuple[str | int, ...]  # pydantic's: a path with the tags of unions between its steps


def explained(error: ValidationError, document: dict[str, Any]) -> list[Fault]:
    """One fault for each key that is wrong."""
    found = [(details, _path(details, document)) for details in error.errors(include_url=False)]
    missing = [path for details, path in found if details["type"] == "missing"]
    faults = {
        path: _unknown(details["loc"], path, missing) for details, path in found if details["type"] == "extra_forbidden"
    }
    misspelt = {path for fault in faults.values() for path in fault.involves}
    for details, path in found:
        is_misspelt = details["type"] == "missing" and path in misspelt
        is_short_of_wrong_items = details["type"] == "too_short" and details["input"]
        if not is_misspelt and not is_short_of_wrong_items:
            faults.setdefault(path, Fault(path=path, message=_message(details, path)))
    return list(faults.values())


def _path(details: ErrorDetails, document: dict[str, Any]) -> Path:
    """Where in the document the error is: its location without the tags of unions."""
    path: Path = ()
    here: Any = document
    for step in details["loc"]:
        if step in here if isinstance(here, dict) else isinstance(here, list) and isinstance(step, int):
            path, here = (*path, step), here[step]
    if details["type"] == "missing":
        return (*path, details["loc"][-1])
    discriminator = _discriminator(details)
    return (*path, discriminator) if discriminator and isinstance(here, dict) else path


def _discriminator(details: ErrorDetails) -> str | None:
    """The key (`family`, `name`) that says which of several records is meant, where that is what is wrong."""
    if details["type"] not in ("union_tag_invalid", "union_tag_not_found") or _is_shape(details):
        return None
    key: str = details["ctx"]["discriminator"]
    return key.strip("'")


def _is_shape(details: ErrorDetails) -> bool:
    """Whether a knob is given in a shape that it does not take."""
    return details["type"] == "union_tag_invalid" and details["ctx"]["tag"] in _SHAPES


def _unknown(location: Location, path: Path, missing: Sequence[Path]) -> Fault:
    """The fault of an unknown key; it involves the key that was meant, and what is missing of a form that was not."""
    *around, key = path
    known = _keys(location[:-1])
    section, _, name = str(key).partition(".")
    if section in known and name in _keys((*location[:-1], section)):
        return Fault(path=path, message=f"unknown key; write it as {section}: {{{name}: ...}}")
    other = _OTHER_WORDS.get(str(key))
    form = _FORMS.get(str(location[-2])) if len(location) > 1 else None
    of_all_forms = _keys(location[:-2]) if form else []
    beside = [lacking for lacking in missing if lacking[:-1] == path[:-1]]
    if key in of_all_forms:
        return Fault(path=path, message=f"{key} and {form} exclude each other; leave one out", involves=(*beside,))
    for keys, unneeded in ((known, []), (of_all_forms, beside)):
        if meant := other if other in keys else did_you_mean(str(key), keys):
            suggested = (*around, meant)
            message = f"unknown key; did you mean {dotted(suggested)}?"
            return Fault(path=path, message=message, involves=(suggested, *unneeded))
    for section in StudyFile.model_fields:
        if key in _keys((section,)) and around != [section]:
            suggested = (section, key)
            return Fault(path=path, message=f"unknown key; did you mean {dotted(suggested)}?", involves=(suggested,))
    return Fault(path=path, message=f"unknown key; known here: {', '.join(known)}")


def _message(details: ErrorDetails, path: Path) -> str:
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "missing":
            return f"missing; {_MISSING.get(str(path[-1]), 'give it')}"
        case "union_tag_not_found":
            return f"missing; one of {', '.join(_named(details))}"
        case "union_tag_invalid" if _is_shape(details):
            return _SHAPES[context["tag"]]
        case "union_tag_invalid":
            named = value[_discriminator(details)]
            return f"{shown(named)} is not known; {one_of(named, _named(details))}"
        case "literal_error":
            known = re.findall(r"'([^']*)'", context["expected"])
            return f"{shown(value)} is not known; {one_of(value, known)}"
        case "string_pattern_mismatch":
            return f"{shown(value)} is not a study's name; {STUDY_NAME_RULE}"
        case "scalar" if isinstance(value, dict) and value and path[-1] in StudyFile.model_fields:
            name, inner = next(iter(value.items()))
            meant = "..." if isinstance(inner, dict) else flow(inner)
            return f"a mapping is no condition; write {path[-1]}.{printable(name)}: {meant}"
        case "too_short":
            return "is empty; give at least one"
        case kind if kind in _KINDS:
            what, right = _KINDS[kind]
            if kind == "int_type" and isinstance(value, float) and value.is_integer():
                right = f"write {shown(int(value))}"
            right = _MAPPINGS.get(str(path[-1]), right) if what == _MAPPING else right
            return f"{shown(value)} is not {what}; {right}"
        case kind if kind in _BOUNDS:
            key, words = _BOUNDS[kind]
            bound = context[key]
            text = f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
            return f"{shown(value)} is out of bounds; it must be {words} {text}"
        case _:
            return details["msg"]


def _named(details: ErrorDetails) -> list[str]:
    """The names that a record may have there: families, data sets, pruners."""
    discriminator = _discriminator(details) or ""
    return [record.model_fields[discriminator].default for record in _records_at(details["loc"])]


def _keys(location: Location) -> list[str]:
    return list(dict.fromkeys(key for record in _records_at(location) for key in record.model_fields))


def _records_at(location: Location) -> list[type[Record]]:
    """The records that may stand at a location."""
    records: list[type[Record]] = [StudyFile]
    for step in location:
        fields = [record.model_fields[step] for record in records if step in record.model_fields]
        inner = [record for field in fields for record in _records_in(field.annotation)]
        tagged = [record for record in records if step in _tags(record)]
        records = inner or tagged or records
    return records


def _records_in(annotation: Any) -> Iterator[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _records_in(part)


def _tags(record: type[Record]) -> set[Any]:
    names = (record.model_fields[name].default for name in ("family", "name") if name in record.model_fields)
    return {getattr(record, "tag", None), *names}
