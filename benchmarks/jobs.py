"""What all contestants of benchmarks/training.py are given: a workload's prepared data and its configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json

from tuner.search import SAMPLERS, History
from tuner.search.distributions import distribution
from tuner.settings import read_settings
from tuner.spec.config import TrialConfig
from tuner.spec.study import StudySpec, read_spec
from tuner.training.data import prepare

FILES = {file.stem: file for file in sorted(Path(__file__).with_name("workloads").glob("*.yaml"))}


@dataclass(frozen=True, kw_only=True)
class Job:
    file: Path
    overrides: Sequence[str]  # of the file, as `tuner launch --set` takes them
    spec: StudySpec
    data: Path
    configs: Sequence[TrialConfig]  # those that the search proposes: the same for all contestants
    plain: dict[str, Any]  # the same for scripts that know nothing of tuner; JSON


def make_job(file: Path, overrides: Sequence[str] = ()) -> Job:
    """Raises DataError where the data set cannot be had."""
    spec = read_spec(file, overrides)
    data = prepare(spec.data, read_settings())
    history = History(direction=spec.objective.direction)
    points = [
        SAMPLERS[spec.search.method](spec.space, history, spec.search.seed, number)
        for number in range(spec.budget.trials or 0)
    ]
    configs = [spec.space.resolve(point) for point in points]
    knobs = [flat(config) for config in configs]
    if any({**knobs[0], **point} != own for point, own in zip(points, knobs, strict=True)):
        raise SystemExit(f"{file}: the plain script knows no conditions and no values for each layer")
    plain = {
        "data": str(data),
        "metric": spec.objective.metric,
        "direction": spec.objective.direction,
        "knobs": knobs[0],
        "space": {parameter.name: distribution_to_json(distribution(parameter)) for parameter in spec.space.parameters},
        "points": points,
    }
    return Job(file=file, overrides=overrides, spec=spec, data=data, configs=configs, plain=plain)


def flat(config: TrialConfig) -> dict[str, Any]:
    """Every knob of a trial under its last word."""
    return {**config.model.model_dump(mode="json"), **config.training.model_dump(mode="json")}
