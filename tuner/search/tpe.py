"""Bayesian search by the tree-structured Parzen estimator (Bergstra et al. 2011, NeurIPS 24), as Optuna implements it.

Multivariate, with parameters grouped by the conditions under which they occur (Falkner et al. 2018, arXiv:1807.01774),
and with running trials taken for bad ones, so that parallel workers do not flock to one place ("constant liar").
"""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from tuner.search import random
from tuner.search.distributions import distribution
from tuner.search.history import History, HistoryStorage, study_of
from tuner.seeds import derive_seed
from tuner.spec.space import Parameter, Point, Space, Value

STARTUP_TRIALS = 10


def propose(space: Space, history: History, seed: int, number: int) -> Point:
    """A function of its arguments: the same history, in the same order of finishing, gives the same point.

    While the number or the trials to learn from are below STARTUP_TRIALS the point is random search's.
    """
    learnable = sum(trial.state != TrialState.FAIL for trial in history.finished)
    if number < STARTUP_TRIALS or learnable < STARTUP_TRIALS:
        return random.propose(space, history, seed, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = TPESampler(
            seed=derive_seed(seed, number, "sampler"),
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=0,  # decided above
        )
    study = study_of(HistoryStorage(history))
    trial = _unsampled(number)
    together = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))

    def draw(parameter: Parameter) -> Value:
        if parameter.name in together:
            value: Value = together[parameter.name]
        else:  # not seen in any finished trial, or with a single value
            value = sampler.sample_independent(study, trial, parameter.name, distribution(parameter))
        return value

    return space.point(draw)


def _unsampled(number: int) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(UTC).replace(tzinfo=None),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
