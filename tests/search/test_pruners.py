"""Which trials are given up, when, and that it depends on what was reported alone."""

from __future__ import annotations

from datetime import datetime

import pytest
from optuna.trial import FrozenTrial, TrialState

from tuner.search import History
from tuner.search.pruners import Pruner, as_judged, startup_trials
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

EPOCHS = 9


def trial(number: int, curve: dict[int, float], *, running: bool = False, **attributes: float) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING if running else TrialState.COMPLETE,
        value=None if running else max(curve.values()),
        datetime_start=datetime(2026, 1, 1),
        datetime_complete=None if running else datetime(2026, 1, 1),
        params={},
        distributions={},
        user_attrs={},
        system_attrs=dict(attributes),
        intermediate_values=curve,
    )


def steady(value: float) -> dict[int, float]:
    return dict.fromkeys(range(1, EPOCHS + 1), value)


HISTORY = History(direction="maximize", finished=[trial(number, steady(0.1 * number)) for number in range(10)])


def epoch_of_pruning(
    config: PrunerConfig, curve: dict[int, float], history: History = HISTORY, seed: int = 0, number: int = 99
) -> int | None:
    pruner = Pruner(SearchConfig(pruner=config, seed=seed), EPOCHS)
    attributes: dict[str, float] = {}
    for epoch in range(1, EPOCHS + 1):
        until = {step: value for step, value in curve.items() if step <= epoch}
        decision = pruner.decide(history, as_judged(number, number, until, attributes), epoch)
        attributes |= decision.attributes
        if decision.prune:
            return epoch
    return None


ACTIVE = [
    MedianPruner(),
    PercentilePruner(percentile=50.0),
    AshaPruner(reduction_factor=3),
    HyperbandPruner(),
    PatientPruner(patience=1, pruner=MedianPruner()),
]


@pytest.mark.parametrize("config", [MedianPruner(), PercentilePruner(percentile=50.0)], ids=lambda config: config.name)
def test_the_hopeless_is_given_up_and_the_best_is_not(config: PrunerConfig) -> None:
    assert epoch_of_pruning(config, steady(0.05)) == 1
    assert epoch_of_pruning(config, steady(0.95)) is None


@pytest.mark.parametrize(
    "config",
    [
        MedianPruner(min_epochs=4),
        PercentilePruner(min_epochs=4),
        PatientPruner(patience=1, min_epochs=4, pruner=MedianPruner()),
    ],
    ids=lambda config: config.name,
)
def test_min_epochs_are_trained_by_every_trial(config: PrunerConfig) -> None:
    falling = {epoch: -1.0 * epoch for epoch in range(1, EPOCHS + 1)}
    assert epoch_of_pruning(config, falling) == 4


def test_asha_and_hyperband_decide_at_their_rungs_only() -> None:
    rungs = {f"completed_rung_{rung}": 0.5 for rung in range(3)}
    others = History(direction="maximize", finished=[trial(n, steady(0.5), **rungs) for n in range(9)])
    assert epoch_of_pruning(AshaPruner(min_epochs=3, reduction_factor=3), steady(0.1), others) == 3
    late = dict.fromkeys(range(1, 3), 0.9) | dict.fromkeys(range(3, 10), 0.1)
    assert epoch_of_pruning(AshaPruner(min_epochs=2, reduction_factor=3), late, others) == 6


def test_rungs_are_handed_out_to_be_stored() -> None:
    pruner = Pruner(SearchConfig(pruner=AshaPruner(reduction_factor=3)), EPOCHS)
    decision = pruner.decide(History(direction="maximize"), as_judged(0, 0, {1: 0.5}, {}), 1)
    assert decision.attributes == {"completed_rung_0": 0.5}


def test_hyperbands_bracket_follows_from_seed_and_number() -> None:
    rungs = {f"completed_rung_{rung}": 0.5 for rung in range(4)}
    others = History(direction="maximize", finished=[trial(n, steady(0.5), **rungs) for n in range(60)])

    def brackets(seed: int) -> list[int | None]:
        return [epoch_of_pruning(HyperbandPruner(), steady(0.1), others, seed, number) for number in range(100, 120)]

    assert brackets(0) == brackets(0)
    assert brackets(0) != brackets(1)
    assert len(set(brackets(0))) > 1


def test_patience_gives_a_falling_trial_time() -> None:
    assert epoch_of_pruning(PatientPruner(patience=3), {e: 0.9 - 0.1 * e for e in range(1, 10)}) == 5
    assert epoch_of_pruning(PatientPruner(patience=3), {e: 0.1 * e for e in range(1, 10)}) is None


def test_the_first_trials_are_spared() -> None:
    few = History(direction="maximize", finished=HISTORY.finished[-3:])
    assert epoch_of_pruning(MedianPruner(startup_trials=5), steady(0.0), few) is None
    assert epoch_of_pruning(MedianPruner(startup_trials=3), steady(0.0), few) == 1
    assert startup_trials(PatientPruner(pruner=MedianPruner(startup_trials=7))) == 7


def test_where_less_is_better_the_high_are_given_up() -> None:
    losses = History(direction="minimize", finished=[trial(number, steady(0.1 * number)) for number in range(10)])
    assert epoch_of_pruning(MedianPruner(), steady(0.95), losses) == 1
    assert epoch_of_pruning(MedianPruner(), steady(0.05), losses) is None


def test_nobody_is_given_up_after_the_last_epoch() -> None:
    fallen = dict.fromkeys(range(1, EPOCHS), 0.95) | {EPOCHS: 0.0}
    assert epoch_of_pruning(PatientPruner(patience=1), fallen) is None
    assert epoch_of_pruning(MedianPruner(min_epochs=EPOCHS), steady(0.0)) is None


def test_no_pruner_prunes_nothing_and_needs_no_history() -> None:
    assert not Pruner(SearchConfig(pruner=NoPruner()), EPOCHS).active
    assert all(Pruner(SearchConfig(pruner=config), EPOCHS).active for config in ACTIVE)
    assert epoch_of_pruning(NoPruner(), steady(-1e9)) is None
