"""From a study file to its search space.

Every knob becomes constants and parameters, those of a knob behind those of the knobs that its conditions name. What
the file already settles is left out: conditions that always hold, and entries that never can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.spec.config import Record
from tuner.spec.faults import flow
from tuner.spec.knobs import (
    Alternative,
    ChoicesKnob,
    FloatRangeKnob,
    IntRangeKnob,
    ValueKnob,
    each_of,
    listed,
)
from tuner.spec.space import (
    Choices,
    Condition,
    Constant,
    Domain,
    Entry,
    FloatRange,
    IntRange,
    Parameter,
    Space,
    Value,
)
from tuner.spec.study_file import Knob, StudyFile


def space_of(file: StudyFile) -> Space:
    """The space of a file without contradictions."""
    knobs = file.knobs()
    shared = Counter(knob.name for knob in knobs.values())
    entries: list[Entry] = [*_constants("data", file.data), *_constants("objective", file.objective)]
    settled: dict[str, _Settled] = {}
    for knob in _ordered(knobs):
        name = knob.name if shared[knob.name] == 1 else knob.path
        names = _names(name, knob)
        cases = [
            (case, list(_folded(_entries(knob, case, name, settled), settled)))
            for case, name in zip(knob.cases, names, strict=True)
        ]
        mine = [entry for _, found in cases for entry in found]
        entries += mine
        settled[knob.path] = _Settled(
            values=[values for case, found in cases if found and (values := listed(case)) is not None],
            always=any(not entry.when for entry in mine),
        )
    return Space(entries=tuple(entries))


@dataclass(frozen=True, kw_only=True)
class _Settled:
    """What is known of a knob: the values that it can have, and whether it always has one."""

    values: Sequence[Sequence[Value]]  # of each case that can hold
    always: bool


def _constants(section: str, record: Record) -> Iterator[Constant]:
    for name in type(record).model_fields:
        yield Constant(path=f"{section}.{name}", value=getattr(record, name))


def _ordered(knobs: Mapping[str, Knob]) -> Sequence[Knob]:
    """In the order of their declaration, except that a knob comes behind those that it needs."""
    ordered: dict[str, Knob] = {}

    def visit(knob: Knob) -> None:
        for path in knob.needs:
            visit(knobs[path])
        ordered.setdefault(knob.path, knob)

    for knob in knobs.values():
        visit(knob)
    return list(ordered.values())


def _entries(knob: Knob, case: Alternative, name: str, settled: Mapping[str, _Settled]) -> Iterator[Entry]:
    when = tuple(Condition(path=path, values=tuple(dict.fromkeys(values))) for path, values in case.when.items())
    if isinstance(case, ValueKnob):
        yield Constant(path=knob.path, value=case.value, when=when)
        return
    parameter = Parameter(path=knob.path, name=name, domain=_domain(case), when=when)
    counter = each_of(case)
    if counter is None:
        yield parameter
        return
    counts = sorted({count for values in settled[counter].values for count in values if isinstance(count, int)})
    for layer in range(max(counts, default=0)):
        deep_enough = Condition(path=counter, values=tuple(count for count in counts if count > layer))
        yield replace(parameter, name=f"{name}[{layer}]", when=(*when, deep_enough), layer=layer)


def _names(name: str, knob: Knob) -> list[str]:
    """What each case is recorded as: named after its conditions' values; with their paths where that is ambiguous."""
    if not knob.has_cases:
        return [name]
    words = [{path: ",".join(map(_word, values)) for path, values in case.when.items()} for case in knob.cases]
    short = [",".join(case.values()) for case in words]
    recorded = [text for text, case in zip(short, knob.cases, strict=True) if not isinstance(case, ValueKnob)]
    if len(set(recorded)) < len(recorded):
        short = [",".join(f"{path}={values}" for path, values in case.items()) for case in words]
    return [f"{name}[{text}]" for text in short]


def _word(value: Value) -> str:
    return value if isinstance(value, str) else flow(value)


def _domain(case: Alternative) -> Domain:
    match case:
        case IntRangeKnob():
            return IntRange(low=case.low, high=case.high, step=case.step or 1, log=case.log, points=case.points)
        case FloatRangeKnob():
            return FloatRange(low=case.low, high=case.high, step=case.step, log=case.log, points=case.points)
        case ChoicesKnob():
            return Choices(choices=case.choices)
        case _:
            raise TypeError(f"no domain of {type(case).__name__}")


def _folded(entries: Iterator[Entry], settled: Mapping[str, _Settled]) -> Iterator[Entry]:
    """The entries that can hold, with the conditions that are still to be asked."""
    for entry in entries:
        when = [_open(condition, settled[condition.path]) for condition in entry.when]
        if all(condition is None or condition.values for condition in when):
            yield replace(entry, when=tuple(condition for condition in when if condition))


def _open(condition: Condition, known: _Settled) -> Condition | None:
    """The condition with the values that are possible; None where it always holds."""
    values = tuple(value for value in condition.values if any(value in seen for seen in known.values))
    covers = known.always and sum(map(len, known.values)) == len(values)
    return None if covers else replace(condition, values=values)
