"""Pruners: which trials are given up early, decided after every epoch from the curves of all trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial

from tuner.search.history import History, HistoryStorage, study_of
from tuner.spec.search import (
    AshaPruner,
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PatientPruner,
    PercentilePruner,
    PrunerConfig,
    SearchConfig,
)
from tuner.states import TrialState


@dataclass(frozen=True, kw_only=True)
class Decision:
    prune: bool
    attributes: Mapping[str, Any]  # to be stored with the trial: the rungs it has reached


class Pruner:
    """Decides for one study; trials train for at most `epochs` epochs."""

    def __init__(self, search: SearchConfig, epochs: int) -> None:
        self._epochs = epochs
        self._min_epochs = 0 if isinstance(search.pruner, NoPruner) else search.pruner.min_epochs
        self._pruner = _build(search.pruner, epochs)
        # Hyperband hashes the study's name with the trial's number into a bracket: the name is the seed.
        self._name = f"seed {search.seed}"

    @property
    def active(self) -> bool:
        """Whether any trial is ever pruned: if not, histories need not be read for it."""
        return not isinstance(self._pruner, optuna.pruners.NopPruner)

    def judges(self, epoch: int) -> bool:
        """Whether a trial may be given up after this epoch (from 1); after the last one there is nothing to save."""
        return self.active and self._min_epochs <= epoch < self._epochs

    def decide(self, history: History, trial: FrozenTrial, epoch: int) -> Decision:
        """Whether `trial`, whose curve ends at `epoch` (from 1), is to be given up."""
        if not self.judges(epoch):
            return Decision(prune=False, attributes={})
        storage = HistoryStorage(history, self._name)
        return Decision(prune=self._pruner.prune(study_of(storage), trial), attributes=storage.attributes)


def as_judged(
    trial_id: int,
    number: int,
    curve: Mapping[int, float],
    attributes: Mapping[str, Any],
    state: TrialState = TrialState.RUNNING,
) -> FrozenTrial:
    """What pruners look at: a trial at the end of `curve` (epoch, from 1 -> value), and the rungs it has reached."""
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=optuna.trial.TrialState[state.value],
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs=dict(attributes),
        intermediate_values=dict(curve),
    )


def startup_trials(pruner: PrunerConfig) -> int:
    """Trials that must complete before any is pruned."""
    match pruner:
        case MedianPruner() | PercentilePruner():
            return pruner.startup_trials
        case PatientPruner():
            return startup_trials(pruner.pruner)
        case _:
            return 0


def _build(config: PrunerConfig, epochs: int) -> optuna.pruners.BasePruner:
    match config:
        case NoPruner():
            return optuna.pruners.NopPruner()
        case MedianPruner():
            return optuna.pruners.MedianPruner(n_startup_trials=config.startup_trials)
        case PercentilePruner():
            return optuna.pruners.PercentilePruner(config.percentile, n_startup_trials=config.startup_trials)
        case AshaPruner():
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=config.min_epochs, reduction_factor=config.reduction_factor
            )
        case HyperbandPruner():
            return optuna.pruners.HyperbandPruner(
                min_resource=config.min_epochs, max_resource=epochs, reduction_factor=config.reduction_factor
            )
        case PatientPruner():
            inner = None if isinstance(config.pruner, NoPruner) else _build(config.pruner, epochs)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return optuna.pruners.PatientPruner(inner, config.patience, config.min_delta)
