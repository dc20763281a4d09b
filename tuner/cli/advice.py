"""What a study file asks for that cannot have any effect: no fault, but hardly what was meant.

Imported by commands when they run, never at the start of `tuner`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tuner.search.pruners import startup_trials
from tuner.spec.search import NoPruner
from tuner.spec.space import Choices, Constant, Space, Value
from tuner.spec.study import StudySpec

MOMENTUM_OPTIMIZERS = frozenset({"sgd", "rmsprop"})  # the others have none, or their own


def warnings(spec: StudySpec) -> Iterator[str]:
    """One line each."""
    yield from _idle_pruner(spec)
    optimizers = set(_values(spec.space, "training.optimizer"))
    momentum = set(_values(spec.space, "training.momentum"))
    if not optimizers & MOMENTUM_OPTIMIZERS and momentum != {0.0}:
        yield f"training.momentum has no effect: only {' and '.join(sorted(MOMENTUM_OPTIMIZERS))} use it"


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
