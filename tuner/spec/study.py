"""A study as it is searched: what a study file says, resolved and frozen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tuner.errors import InvalidSpec
from tuner.spec.assemble import space_of
from tuner.spec.config import DataConfig, ObjectiveConfig
from tuner.spec.faults import Fault, shown
from tuner.spec.grid import Grid
from tuner.spec.search import MAX_TRIALS, BudgetConfig, Method, SearchConfig
from tuner.spec.source import Source, read_source
from tuner.spec.space import Space
from tuner.spec.study_file import STUDY_NAME, STUDY_NAME_RULE
from tuner.spec.validation import validated


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    name: str
    data: DataConfig
    space: Space
    objective: ObjectiveConfig
    search: SearchConfig
    budget: BudgetConfig
    epochs: int  # of a trial that is not pruned
    engine: Literal["auto", "single", "stacks"]  # as the file says
    document: Mapping[str, Any]  # the file without its name, defaults filled in; JSON

    def digest(self) -> str:
        """What makes the study this one: the same for files that differ in name, budget, comments or order of keys."""
        identity = {key: value for key, value in self.document.items() if key != "budget"}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def with_search(self, *, name: str, method: Method, seed: int) -> StudySpec:
        """The same study searched in another way. Raises InvalidSpec where that cannot be, as a grid without points."""
        search = {**self.document["search"], "method": method, "seed": seed}
        return spec_from_document(name, {**self.document, "search": search})


def read_spec(path: Path, overrides: Sequence[str] = (), name: str | None = None) -> StudySpec:
    """The study of a file, with overrides (`training.epochs=2`) and perhaps another name.

    Raises InvalidSpec with one line for each fault.
    """
    source = read_source(path, overrides)
    if name is not None and re.fullmatch(STUDY_NAME, name):
        source.document["study"] = name
    elif name is not None:
        source.faults["--name: "] = f"{shown(name)} is not a study's name; {STUDY_NAME_RULE}"
    return _spec(source)


def spec_from_document(name: str, document: Mapping[str, Any]) -> StudySpec:
    """The study that a database stored. Raises InvalidSpec where this version of tuner does not understand it."""
    return _spec(Source(root=f"{name}: ", document={"study": name, **document}))


def _spec(source: Source) -> StudySpec:
    file = validated(source)
    space = space_of(file)
    if file.search.method == "grid":
        file = file.model_copy(update={"budget": _within_grid(file.budget, Grid(space).size, source)})
    return StudySpec(
        name=file.study,
        data=file.data,
        space=space,
        objective=file.objective,
        search=file.search,
        budget=file.budget,
        epochs=file.training.epochs,
        engine=file.training.engine,
        document=file.model_dump(mode="json", exclude={"study"}),
    )


def _within_grid(budget: BudgetConfig, points: int, source: Source) -> BudgetConfig:
    """The budget with a trial for each point of the grid at most: without `trials` the grid is the budget."""
    if budget.trials is None and points > MAX_TRIALS:
        size = f"{points:,}" if points < 10**12 else f"more than 10^{len(str(points)) - 1}"
        message = f"missing; the grid has {size} points, a study at most {MAX_TRIALS:,} trials (budget: {{trials: 40}})"
        raise InvalidSpec(source.lines([Fault(path=("budget", "trials"), message=message)]))
    return budget.model_copy(update={"trials": min(points, budget.trials or points)})
