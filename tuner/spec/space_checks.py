"""Contradictions among the conditions of a study file's knobs."""

from __future__ import annotations

import graphlib
import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tuner.spec.faults import Fault, dotted, flow, one_of, shown
from tuner.spec.knobs import Alternative, ValueKnob, each_of, listed, value_type
from tuner.spec.space import Value
from tuner.spec.study_file import FAMILIES, Knob


def condition_faults(knobs: Mapping[str, Knob]) -> Iterator[Fault]:
    for knob in knobs.values():
        for key, case in zip(knob.keys, knob.cases, strict=True):
            for path, values in case.when.items():
                for message in _faults_of(knob, knobs.get(path), path, values, knobs):
                    yield Fault(path=(*key, "when", path), message=message, involves=(tuple(path.split(".")),))
        yield from _case_faults(knob)
        yield from _layer_faults(knob, knobs)
    yield from _circle_faults(knobs)


def _faults_of(
    knob: Knob, other: Knob | None, path: str, values: tuple[Value, ...], knobs: Mapping[str, Knob]
) -> Iterator[str]:
    """What is wrong with the condition that `other`, at `path`, has one of `values`."""
    if other is None:
        section, _, name = path.partition(".")
        families = [family.model_fields["family"].default for family in FAMILIES if name in family.model_fields]
        belongs = f"{name} belongs to {', '.join(families)}" if section == "model" and families else ""
        yield f"unknown knob; {belongs or one_of(path, knobs)}"
    elif other is knob:
        yield "a knob cannot depend on itself; name another one"
    elif any(each_of(case) or isinstance(getattr(case, "value", None), tuple) for case in other.cases):
        yield f"{path} has a value for each layer; a condition needs a knob with one value"
    elif any(listed(case) is None for case in other.cases):
        yield f"{path} is a range of real numbers; a condition needs listed ones: {{choices: [...]}}"
    else:
        for value in values:
            yield from _value_faults(other, value)


def _value_faults(other: Knob, value: Value) -> Iterator[str]:
    kind = value_type(other.field)
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        words = [word for word in get_args(kind) if isinstance(word, str)]
        yield f"{other.path} is never {shown(value)}" + (f"; {one_of(value, words)}" if words else "")
        return
    # A knob that is fixed may be so for this run only (--set): then the condition just never holds.
    is_searched = not all(isinstance(case, ValueKnob) for case in other.cases)
    if is_searched and not any(value in (listed(case) or ()) for case in other.cases):
        yield f"{other.path} is never {flow(value)}; it is {_possible(other)}"


def _possible(knob: Knob) -> str:
    """`from 1 to 3 or one of 8, 16`."""
    texts = []
    for values in (listed(case) or () for case in knob.cases):
        if isinstance(values, range):
            texts.append(f"from {values[0]} to {values[-1]}" + (f" by {values.step}" if values.step > 1 else ""))
        else:
            texts.append(", ".join(map(flow, values)))
    return " or ".join(texts)


def _case_faults(knob: Knob) -> Iterator[Fault]:
    if not knob.has_cases:
        return
    for key, case in zip(knob.keys, knob.cases, strict=True):
        if not case.when:
            message = "a case without a condition; give each case its own: when: {training.optimizer: sgd}"
            yield Fault(path=key, message=message)
    for (key, case), (other_key, other) in combinations(zip(knob.keys, knob.cases, strict=True), 2):
        if case.when and other.when and not _exclude_each_other(case, other):
            message = f"may hold together with {dotted(key)}; make their conditions exclude each other"
            yield Fault(path=other_key, message=message)


def _exclude_each_other(case: Alternative, other: Alternative) -> bool:
    common = case.when.keys() & other.when.keys()
    return any(set(case.when[path]).isdisjoint(other.when[path]) for path in common)


def _layer_faults(knob: Knob, knobs: Mapping[str, Knob]) -> Iterator[Fault]:
    """A list of values must fit the number of layers wherever it holds."""
    if knob.layers is None:
        return
    counts = knobs[knob.layers]
    for key, case in zip(knob.keys, knob.cases, strict=True):
        if isinstance(case, ValueKnob) and isinstance(case.value, tuple):
            length = len(case.value)
            other = next((count for count in _counts_beside(case, counts, knobs) if count != length), None)
            if other is not None:
                is_said = any(other in (listed(way) or ()) for way in counts.cases)
                may_be = f"{counts.path} may be {other}{'' if is_said else ' by default'}"
                message = f"lists {length} layers, but {may_be}; fix {counts.path} or give one value"
                yield Fault(path=key, message=message, involves=((counts.section, counts.name),))


def _counts_beside(case: Alternative, counts: Knob, knobs: Mapping[str, Knob]) -> Iterator[Value]:
    """The numbers of layers that there may be where the case holds."""
    if counts.path in case.when:
        yield from case.when[counts.path]
        return
    named: dict[str, set[Value]] = {}
    for way in (case, *counts.cases):
        for path, values in way.when.items():
            named.setdefault(path, set()).update(values)
    options = {path: _told_apart(knobs.get(path), values) for path, values in named.items()}

    def room(*conditions: Mapping[str, tuple[Value, ...]]) -> int:
        """How many combinations of options meet all conditions."""
        return math.prod(
            sum(all(path not in when or option in when[path] for when in conditions) for option in values)
            for path, values in options.items()
        )

    left = room(case.when)
    for way in counts.cases:
        beside = room(case.when, way.when)
        left -= beside  # cases exclude each other: none is taken away twice
        if beside:
            yield from listed(way) or ()
    if left > 0:
        yield counts.field.default


def _told_apart(knob: Knob | None, named: set[Value]) -> list[object]:
    """The values of a knob that conditions tell apart: those that they name, and one that stands for all others."""
    if knob is None:
        return list(named)
    possible = [listed(case) or () for case in knob.cases]
    options: list[object] = [value for value in named if any(value in values for values in possible)]
    may_be_absent = all(case.when for case in knob.cases)
    if may_be_absent or any(value not in named for values in possible for value in values):
        options.append(object())
    return options


def _circle_faults(knobs: Mapping[str, Knob]) -> Iterator[Fault]:
    graph = {path: [other for other in knob.needs if other in knobs and other != path] for path, knob in knobs.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1][::-1]  # the sorter lists what comes first, first
        knob = knobs[circle[0]]
        message = f"conditions go in a circle: {' needs '.join(circle)}; let one of them depend on none of the others"
        yield Fault(path=(knob.section, knob.name), message=message)
