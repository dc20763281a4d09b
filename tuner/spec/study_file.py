"""The whole study file as one frozen model: what `tuner schema` describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

from tuner.spec.config import METRICS, DataConfig, ModelConfig, ObjectiveConfig, PerLayer, Record, TrainingConfig
from tuner.spec.faults import Path
from tuner.spec.knobs import Alternative, ValueKnob, each_of, searchable, union_of
from tuner.spec.search import BudgetConfig, SearchConfig

STUDY_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
STUDY_NAME_RULE = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or a digit"

FAMILIES: tuple[type[Any], ...] = get_args(get_args(ModelConfig)[0])

if TYPE_CHECKING:
    ModelKnobs = ModelConfig  # with what the file says of a knob for its value
    TrainingKnobs = TrainingConfig
else:
    ModelKnobs = Annotated[
        union_of([searchable(family, "model") for family in FAMILIES]), Field(discriminator="family")
    ]
    TrainingKnobs = searchable(TrainingConfig, "training")


@dataclass(frozen=True, kw_only=True)
class Knob:
    section: str
    name: str
    field: FieldInfo  # its plain declaration
    said: Any  # what the file says of it

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def cases(self) -> tuple[Alternative, ...]:
        """The ways in which it gets a value; a knob that is fixed has one, without a condition."""
        match self.said:
            case Alternative():
                return (self.said,)
            case (Alternative(), *_):
                return tuple(self.said)
            case value:
                return (ValueKnob.model_construct(value=value, when={}),)

    @property
    def keys(self) -> tuple[Path, ...]:
        """Where each of the cases stands in the file."""
        key = (self.section, self.name)
        return tuple((*key, number) for number in range(len(self.cases))) if self.has_cases else (key,)

    @property
    def has_cases(self) -> bool:
        return isinstance(self.said, tuple) and isinstance(self.said[0], Alternative)

    @property
    def needs(self) -> list[str]:
        """The paths of the knobs that its conditions name, or that count its layers."""
        paths = [path for case in self.cases for path in (*case.when, each_of(case))]
        return list(dict.fromkeys(path for path in paths if path))

    @property
    def layers(self) -> str | None:
        """The path of the knob that counts the layers, where this one may have a value for each."""
        mark = next((item for item in self.field.metadata if isinstance(item, PerLayer)), None)
        return f"{self.section}.{mark.layers}" if mark else None


class StudyFile(Record):
    """A study: data, a model, how it is trained, and what of it is searched.

    Every key of `model` and `training` is fixed by a value and searched by a range, in the same place.
    """

    study: str = Field(pattern=f"^{STUDY_NAME}$", description=f"the study's name: {STUDY_NAME_RULE}")
    data: DataConfig
    model: ModelKnobs
    training: TrainingKnobs = Field(default_factory=TrainingKnobs)
    objective: ObjectiveConfig = ObjectiveConfig()
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig = BudgetConfig()

    def with_metric(self) -> StudyFile:
        """The file with the metric that its task has where none is given."""
        if "metric" in self.objective.model_fields_set:
            return self
        objective = ObjectiveConfig(metric=METRICS[self.data.task][0], value=self.objective.value)
        return self.model_copy(update={"objective": objective})

    def knobs(self) -> dict[str, Knob]:
        """Every knob by its dotted path, in the order in which they are declared."""
        declared: dict[str, type[Record]] = {
            "model": next(family for family in FAMILIES if isinstance(self.model, family)),
            "training": TrainingConfig,
        }
        return {
            f"{section}.{name}": Knob(
                section=section, name=name, field=field, said=getattr(getattr(self, section), name)
            )
            for section, record in declared.items()
            for name, field in record.model_fields.items()
        }
