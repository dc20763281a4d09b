"""How a study searches, what it may spend, and which trials it gives up early."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tuner.spec.config import Record

Method = Literal["grid", "random", "tpe"]


class NoPruner(Record):
    """Every trial trains to its last epoch."""

    name: Literal["none"] = "none"


class MedianPruner(Record):
    """Ends a trial whose best value so far is worse than the median of the others at the same epoch."""

    name: Literal["median"] = "median"
    min_epochs: int = Field(1, ge=1, description="epochs that every trial may train")
    startup_trials: int = Field(5, ge=0, description="trials to complete before any is pruned")


class PercentilePruner(Record):
    """Ends a trial that is not among the best `percentile` percent at the same epoch."""

    name: Literal["percentile"] = "percentile"
    percentile: float = Field(25.0, ge=0.0, le=100.0)
    min_epochs: int = Field(1, ge=1, description="epochs that every trial may train")
    startup_trials: int = Field(5, ge=0, description="trials to complete before any is pruned")


class AshaPruner(Record):
    """Asynchronous successive halving (Li et al. 2018, arXiv:1810.05934)."""

    name: Literal["asha"] = "asha"
    min_epochs: int = Field(1, ge=1, description="epochs of the first rung")
    reduction_factor: int = Field(4, ge=2, description="one in so many goes on to the next rung")


class HyperbandPruner(Record):
    """Brackets of successive halving (Li et al. 2018, arXiv:1603.06560); a trial's bracket follows (seed, number)."""

    name: Literal["hyperband"] = "hyperband"
    min_epochs: int = Field(1, ge=1, description="epochs of the first rung")
    reduction_factor: int = Field(3, ge=2, description="one in so many goes on to the next rung")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value  # `pruner: median` is short for {name: median}


_InnerPruner = NoPruner | MedianPruner | PercentilePruner | AshaPruner | HyperbandPruner
_InnerName = Literal["none", "median", "percentile", "asha", "hyperband"]
InnerPrunerConfig = Annotated[
    _InnerPruner, Field(discriminator="name"), BeforeValidator(_named, json_schema_input_type=_InnerPruner | _InnerName)
]


class PatientPruner(Record):
    """Lets the pruner inside speak only where a trial's latest epochs are worse than its best (Optuna's rule).

    That is where the best of the last `patience` + 1 epochs is worse than the best before them, by more than
    `min_delta`: a trial that stays on a plateau is left alone.
    """

    name: Literal["patient"] = "patient"
    patience: int = Field(3, ge=1, description="the last epochs, this many and one, are compared with those before")
    min_delta: float = Field(0.0, ge=0.0, description="how much worse they must be")
    min_epochs: int = Field(1, ge=1, description="epochs that every trial may train")
    pruner: InnerPrunerConfig = NoPruner()


_Pruner = _InnerPruner | PatientPruner
PrunerConfig = Annotated[
    _Pruner,
    Field(discriminator="name"),
    BeforeValidator(_named, json_schema_input_type=_Pruner | _InnerName | Literal["patient"]),
]


class SearchConfig(Record):
    method: Method = "tpe"
    seed: int = Field(0, ge=0, le=2**31 - 1)
    parallel_proposals: int = Field(
        1, ge=1, le=1000, description="trials that tpe may propose for one stack before it learns of any of them"
    )
    pruner: PrunerConfig = NoPruner()


MAX_TRIALS = 1_000_000
MAX_TOTAL_EPOCHS = 1_000_000_000


class BudgetConfig(Record):
    """Whichever is spent first ends the study."""

    trials: int | None = Field(None, ge=1, le=MAX_TRIALS, description="trials, whatever their outcome")
    total_epochs: int | None = Field(
        None, ge=1, le=MAX_TOTAL_EPOCHS, description="epochs trained, summed over all trials"
    )
    seconds: float | None = Field(None, gt=0, description="seconds of training, summed over all trials")
    failures: int | None = Field(
        None, ge=1, le=MAX_TRIALS, description="trials that crash or time out before the study is paused"
    )

    @property
    def ends(self) -> bool:
        """Whether it is ever spent: failures only pause a study."""
        return self.model_copy(update={"failures": None}) != BudgetConfig()
