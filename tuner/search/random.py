"""Random search (Bergstra and Bengio 2012, JMLR 13): every trial's point follows from (seed, number) alone."""

from __future__ import annotations

from optuna.samplers import RandomSampler

from tuner.search.distributions import distribution
from tuner.search.history import History, HistoryStorage, study_of
from tuner.seeds import derive_seed
from tuner.spec.space import Parameter, Point, Space, Value


def propose(space: Space, history: History, seed: int, number: int) -> Point:
    """A point drawn uniformly (in the logarithm where a range says so); `history` is not looked at."""
    sampler = RandomSampler(seed=derive_seed(seed, number, "sampler"))
    study = study_of(HistoryStorage(History(direction=history.direction)))

    def draw(parameter: Parameter) -> Value:
        # RandomSampler looks neither at the study nor at the trial.
        value: Value = sampler.sample_independent(study, None, parameter.name, distribution(parameter))  # type: ignore[arg-type]
        return value

    return space.point(draw)
