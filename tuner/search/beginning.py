"""The trials that a study begins with, before its search has learnt anything: by them it is judged beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from tuner.search import LEARNERS, SAMPLERS, proposes_alone
from tuner.search.history import History
from tuner.spec.config import TrialConfig
from tuner.spec.stacking import Sample, shape_of, with_engine
from tuner.spec.study import StudySpec

SAMPLED_TRIALS = 200


def first_trials(spec: StudySpec) -> Iterator[TrialConfig]:
    history = History(direction=spec.objective.direction)
    for number in count() if spec.budget.trials is None else range(spec.budget.trials):
        yield spec.space.resolve(SAMPLERS[spec.search.method](spec.space, history, spec.search.seed, number))


def sample(spec: StudySpec, *, compared: bool = False) -> Sample:
    """By which engines are compared for a study; nothing where it can have no stacks.

    What a study that is `compared` with others can have does not matter: all of them have one engine.
    """
    if spec.engine == "single" or (proposes_alone(spec.search) and not compared):
        return Sample(configs=(), together=1)
    return Sample(
        configs=tuple(config for config in islice(first_trials(spec), SAMPLED_TRIALS) if _can_be_stacked(config)),
        together=spec.search.parallel_proposals if spec.search.method in LEARNERS and not compared else None,
    )


def _can_be_stacked(config: TrialConfig) -> bool:
    return shape_of(with_engine(config, "stacks")) is not None
