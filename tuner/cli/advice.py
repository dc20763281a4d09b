"""What can be told of a study file that has no fault: what cannot have any effect, and what would be faster.

Imported by commands when they run, never at the start of `tuner`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tuner.search import proposes_alone
from tuner.search.beginning import SAMPLED_TRIALS, first_trials
from tuner.search.pruners import startup_trials
from tuner.spec.config import TrialConfig
from tuner.spec.search import NoPruner
from tuner.spec.space import Choices, Constant, Space, Value
from tuner.spec.stacking import shape_of, with_engine
from tuner.spec.study import StudySpec

MOMENTUM_OPTIMIZERS = frozenset({"sgd", "rmsprop"})  # the others have none, or their own
WORTHWHILE_GAIN = 1.2  # times as fast; less is not worth a thought about precision


def warnings(spec: StudySpec) -> Iterator[str]:
    """Of what has no effect, which is hardly what was meant; one line each."""
    yield from _idle_pruner(spec)
    optimizers = set(_values(spec.space, "training.optimizer"))
    momentum = set(_values(spec.space, "training.momentum"))
    if not optimizers & MOMENTUM_OPTIMIZERS and momentum != {0.0}:
        yield f"training.momentum has no effect: only {' and '.join(sorted(MOMENTUM_OPTIMIZERS))} use it"


def on_precision(
    spec: StudySpec, bfloat16_gain: float | None, engine_gain: float = 1.0, *, stackable: bool = True
) -> str | None:
    """Where bfloat16 would pay, and what it costs: trials in bfloat16 are never stacked.

    Both gains are of speed, over single trials in float32; data that is streamed is not `stackable`.
    """
    if spec.document["training"]["precision"] == "bfloat16":
        alone = stackable and _may_stack(spec)
        return "bfloat16: each trial trains singly, there are no stacks" if alone else None
    if bfloat16_gain is None or bfloat16_gain < WORTHWHILE_GAIN * engine_gain:
        return None
    text = f"with training.precision: bfloat16 the model of most work trains {bfloat16_gain:.1f} x as fast here"
    return f"{text}, which excludes stacks" if engine_gain > 1.0 else text


def _may_stack(spec: StudySpec) -> bool:
    """Whether trials could train in stacks if they train in float32."""
    if proposes_alone(spec.search) or spec.engine == "single":
        return False
    return any(shape_of(_stacked(trial)) is not None for trial in islice(first_trials(spec), SAMPLED_TRIALS))


def _stacked(trial: TrialConfig) -> TrialConfig:
    return with_engine(
        trial.model_copy(update={"training": trial.training.model_copy(update={"precision": "float32"})}), "stacks"
    )


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
