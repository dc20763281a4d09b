"""What can be told of a study file that has no fault: what cannot have any effect, and what would be faster.

Imported by commands when they run, never at the start of `tuner`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tuner.search.beginning import sample
from tuner.search.pruners import startup_trials
from tuner.spec.search import NoPruner
from tuner.spec.space import Choices, Constant, Space, Value
from tuner.spec.stacking import Engine
from tuner.spec.study import StudySpec, spec_from_document

MOMENTUM_OPTIMIZERS = frozenset({"sgd", "rmsprop"})  # the others have none, or their own
WORTHWHILE_GAIN = 1.2  # times as fast; less is not worth a thought about precision


def warnings(spec: StudySpec) -> Iterator[str]:
    """Of what has no effect, which is hardly what was meant; one line each."""
    yield from _idle_pruner(spec)
    optimizers = set(_values(spec.space, "training.optimizer"))
    momentum = set(_values(spec.space, "training.momentum"))
    if not optimizers & MOMENTUM_OPTIMIZERS and momentum != {0.0}:
        yield f"training.momentum has no effect: only {' and '.join(sorted(MOMENTUM_OPTIMIZERS))} use it"


def on_precision(spec: StudySpec, bfloat16_gain: float | None, engine: Engine | None, engine_gain: float) -> str | None:
    """Where bfloat16 would pay, and what it costs: trials in bfloat16 are never stacked.

    Both gains are of speed, over single trials in float32.
    """
    training = spec.document["training"]
    if training["precision"] == "bfloat16":
        float32 = spec_from_document(spec.name, {**spec.document, "training": {**training, "precision": "float32"}})
        return "bfloat16: each trial trains singly, there are no stacks" if sample(float32).groups else None
    if bfloat16_gain is None or bfloat16_gain < WORTHWHILE_GAIN * max(1.0, engine_gain):
        return None
    text = f"bfloat16 would train the model of most work {bfloat16_gain:.1f} x as fast as float32 does singly"
    but = "; it excludes stacks" if engine is not None and engine.name == "stacks" else ""
    return f"training.precision: {text}{but}"


def _idle_pruner(spec: StudySpec) -> Iterator[str]:
    pruner, trials = spec.search.pruner, spec.budget.trials
    if isinstance(pruner, NoPruner):
        return
    startup = startup_trials(pruner)
    if pruner.min_epochs > spec.epochs:
        yield f"{pruner.name} never prunes: min_epochs {pruner.min_epochs}, trials have {spec.epochs} epochs"
    elif trials is not None and startup >= trials:
        yield f"{pruner.name} never prunes: startup_trials {startup}, the budget has {trials} trials"


def _values(space: Space, path: str) -> Iterator[Value]:
    """What the knob at `path` can be; of a range its ends."""
    for entry in space.entries:
        if entry.path == path:
            if isinstance(entry, Constant):
                yield entry.value
            elif isinstance(entry.domain, Choices):
                yield from entry.domain.choices
            else:
                yield from (entry.domain.low, entry.domain.high)
