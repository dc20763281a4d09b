"""What a proposal or a pruning decision looks at: the trials of a study, as one saw them at a moment.

`HistoryStorage` shows such a history to Optuna's samplers and pruners, which read trials through a study and its
storage. It holds nothing else and talks to nobody, so that a proposal is a function of its arguments.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from copy import deepcopy as deep_copy
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, kw_only=True)
class History:
    direction: Direction
    finished: Sequence[FrozenTrial] = field(default=())  # in the order in which they finished
    running: Sequence[FrozenTrial] = field(default=())  # by number
    finish_seq: int = 0  # of the last that finished: there may be fewer, for a trial that is tried again loses its own


def study_of(storage: HistoryStorage) -> optuna.Study:
    """The Optuna study that samplers and pruners are given to read."""
    return optuna.load_study(study_name=storage.name, storage=storage, sampler=_NO_SAMPLER)


_NO_SAMPLER = optuna.samplers.RandomSampler(seed=0)  # spares load_study from making a TPE sampler each time


class HistoryStorage(BaseStorage):
    """A read-only storage of one study; attributes set on its trials are kept in `attributes`."""

    _STUDY_ID = 0

    def __init__(self, history: History, name: str = "history") -> None:
        self.name = name
        self._history = history
        self._trials = [*history.finished, *history.running]
        self.attributes: dict[str, Any] = {}

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self.name:
            raise KeyError(study_name)
        return self._STUDY_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE if self._history.direction == "maximize" else StudyDirection.MINIMIZE]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self._trials if states is None or trial.state in states]
        return deep_copy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        for trial in self._trials:
            if trial._trial_id == trial_id:
                return trial
        raise KeyError(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.attributes[key] = value

    # A history is never written: the rest of the interface is refused.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise NotImplementedError

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError

    def get_all_studies(self) -> list[Any]:
        raise NotImplementedError

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        raise NotImplementedError

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        raise NotImplementedError

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        raise NotImplementedError

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        raise NotImplementedError
