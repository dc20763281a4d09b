"""Contradictions between the keys of a study file, each of which is right by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tuner.spec.config import METRICS, Etth1Data, Split
from tuner.spec.faults import Fault, flow
from tuner.spec.knobs import ChoicesKnob, FloatRangeKnob, RangeKnob, listed
from tuner.spec.space_checks import condition_faults
from tuner.spec.study_file import FAMILIES, Knob, StudyFile

_MAX_STEPS = 10**9


def contradictions(file: StudyFile) -> Iterator[Fault]:
    knobs = file.knobs()
    for knob in knobs.values():
        yield from _domain_faults(knob)
    yield from condition_faults(knobs)
    yield from _data_faults(file)
    yield from _search_faults(file)


def _domain_faults(knob: Knob) -> Iterator[Fault]:
    for key, case in zip(knob.keys, knob.cases, strict=True):
        if isinstance(case, RangeKnob):
            for message in _range_faults(case):
                yield Fault(path=key, message=message)
        elif isinstance(case, ChoicesKnob):
            twice = [choice for number, choice in enumerate(case.choices) if choice in case.choices[:number]]
            if twice:
                yield Fault(
                    path=(*key, "choices"), message=f"{flow(twice[0])} stands there twice; list each value once"
                )


def _range_faults(case: RangeKnob) -> Iterator[str]:
    low, high, step = case.low, case.high, case.step
    if low > high:
        yield f"low {low:g} is above high {high:g}; swap them"
    if case.log and low <= 0:
        yield f"a logarithmic range begins above 0, not at {low:g}; raise low or leave out log"
    if case.log and step:
        yield "a logarithmic range has no step; leave out log or step"
    elif step and low <= high:
        steps = (high - low) / step
        if steps > _MAX_STEPS:
            yield f"step {step:g} makes more than {_MAX_STEPS:g} values; leave it out"
        elif not math.isclose(steps, round(steps), abs_tol=1e-8):
            reached = low + math.floor(steps) * step
            yield f"steps of {step:g} from {low:g} do not end at high {high:g}; the last would be {reached:.12g}"


def _data_faults(file: StudyFile) -> Iterator[Fault]:
    data, model = file.data, file.model
    if data.kind not in model.reads:
        fit = [family.model_fields["family"].default for family in FAMILIES if data.kind in family.reads]
        message = (
            f"{model.family} does not read {data.name}, whose examples are of kind {data.kind}; use {' or '.join(fit)}"
        )
        yield Fault(path=("model", "family"), message=message, involves=(("data", "name"),))
    if file.objective.metric not in METRICS[data.task]:
        message = f"{file.objective.metric} is no metric of a {data.task}; one of {', '.join(METRICS[data.task])}"
        yield Fault(path=("objective", "metric"), message=message, involves=(("data", "name"),))
    split = getattr(data, "split", None)
    if isinstance(split, Split) and split.validation + split.test >= 1:
        message = (
            f"validation {split.validation:g} and test {split.test:g} leave nothing to train on; make them smaller"
        )
        yield Fault(path=("data", "split"), message=message)
    relative = file.knobs().get("model.relative_to_last")
    if relative and any(True in (listed(case) or ()) for case in relative.cases):
        message = ""
        if data.task != "forecast":
            message = f"{data.name} is no forecast: there is no last value; leave it out"
        elif isinstance(data, Etth1Data) and data.target not in data.inputs:
            message = f"the model does not see {data.target}; add it to data.inputs, or leave relative_to_last out"
        if message:
            involves = (("data", "name"), ("data", "inputs"), ("data", "target"))
            yield Fault(path=("model", "relative_to_last"), message=message, involves=involves)


def _search_faults(file: StudyFile) -> Iterator[Fault]:
    method = file.search.method
    if method == "grid":
        for knob in file.knobs().values():
            for key, case in zip(knob.keys, knob.cases, strict=True):
                if isinstance(case, FloatRangeKnob) and case.step is None and case.points is None:
                    message = "a grid needs a finite list here; add points (points: 4) or step, or use choices"
                    yield Fault(path=key, message=message, involves=(("search", "method"),))
    elif not file.budget.ends:
        message = f"missing; {method} search needs an end: trials, total_epochs or seconds (budget: {{trials: 40}})"
        yield Fault(path=("budget",), message=message, involves=(("search", "method"),))
