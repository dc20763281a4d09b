"""The trials that a study begins with, before its search has learnt anything: by them it is judged beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby, islice

from tuner.search import LEARNERS, SAMPLERS, proposes_alone
from tuner.search.history import History
from tuner.spec.config import TrialConfig
from tuner.spec.stacking import Group, shape_of, with_engine
from tuner.spec.study import StudySpec

SAMPLED_TRIALS = 200


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Trials by which engines are compared."""

    trials: int  # the first ones of the study, as many as were looked at
    groups: tuple[Group, ...]  # those of them that can be stacked

    @property
    def stackable(self) -> int:
        return sum(group.trials for group in self.groups)


def first_trials(spec: StudySpec) -> Iterator[TrialConfig]:
    """As many as the budget surely has."""
    history, most = History(direction=spec.objective.direction), spec.budget.trials
    if most is None and spec.budget.total_epochs is not None:
        most = max(1, spec.budget.total_epochs // spec.epochs)
    for number in count() if most is None else range(most):
        yield spec.space.resolve(SAMPLERS[spec.search.method](spec.space, history, spec.search.seed, number))


def sample(spec: StudySpec, *, slots: int = 1, compared: bool = False) -> Sample:
    """By which engines are compared for a study; no groups where it can have no stacks.

    Slots divide what there is of a shape. A study that is `compared` with others has their engine, whatever comes of
    it for this one: how many its own search proposes at once does not count.
    """
    configs = list(islice(first_trials(spec), SAMPLED_TRIALS))
    learns = spec.search.method in LEARNERS and not compared
    if spec.engine == "single" or (learns and spec.engine == "auto" and proposes_alone(spec.search)):
        return Sample(trials=len(configs), groups=())
    most = max(1, -(-len(configs) // slots))
    if learns:  # it skips no number: one of another shape ends a group
        most = min(most, spec.search.parallel_proposals)
        together = [list(run) for _, run in groupby(configs, key=_shape)]
    else:
        by_shape: dict[str | None, list[TrialConfig]] = {}
        for config in configs:
            by_shape.setdefault(_shape(config), []).append(config)
        together = [*by_shape.values()]
    return Sample(trials=len(configs), groups=tuple(_groups(together, most)))


def _groups(together: Sequence[Sequence[TrialConfig]], most: int) -> Iterator[Group]:
    for trials in together:
        if _shape(trials[0]) is not None:
            for start in range(0, len(trials), most):
                yield Group(config=trials[start], trials=min(most, len(trials) - start))


def _shape(config: TrialConfig) -> str | None:
    """That it would have in a stack."""
    return shape_of(with_engine(config, "stacks"))
