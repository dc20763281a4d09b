"""What a study file may say of a knob, derived from the plain records of `config.py`.

Where a record's field takes a value, its searchable form takes one of

    value                                     fixed
    [value, ...]                              fixed, one value for each layer (fields marked PerLayer)
    {low, high, log, step, points}            a range (numbers)
    {choices: [...]}                          a list
    {value: v, when: {...}}                   fixed, on a condition; ranges and choices take `when` as well
    [{..., when: {...}}, ...]                 cases, whose conditions exclude each other

and every value in it obeys the field's own constraints. A range or choices with `each: model.layers` (fields marked
PerLayer) is searched for each layer on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    Tag,
    WithJsonSchema,
    create_model,
    model_serializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from tuner.spec.config import Fixed, PerLayer, Record
from tuner.spec.space import Value

MAX_POINTS = 10_000

_Mark = TypeVar("_Mark", Fixed, PerLayer)
_STEP = "only low, low + step, low + 2 step, ..."


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise PydanticCustomError("scalar", "needs a value or a list of values")
    return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


def _sorted(when: dict[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
    return dict(sorted(when.items()))  # names of parameters are made of it: they must not follow the order of keys


Scalar = Annotated[
    Any, AfterValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean", "null"]}, mode="validation")
]
Values = Annotated[
    tuple[Scalar, ...],
    Field(min_length=1),
    BeforeValidator(_as_tuple, json_schema_input_type=Scalar | Annotated[tuple[Scalar, ...], Field(min_length=1)]),
]
When = Annotated[dict[str, Values], Field(min_length=1), AfterValidator(_sorted)]


class Alternative(Record):
    """One way in which a knob gets its value, perhaps on a condition."""

    tag: ClassVar[str]  # in the place of an error; angle brackets, for it must not look like a key
    when: When = Field(
        default_factory=dict,
        description="knobs by dotted path (training.optimizer), each with a value or a list of values: "
        "only there does this hold; elsewhere the knob has its default",
    )

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As short as a user would write it."""
        fields = type(self).model_fields
        return {
            name: value
            for name, value in handler(self).items()
            if fields[name].is_required() or getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }


class ValueKnob(Alternative):
    """A value on a condition."""

    tag = "<value>"
    value: Any


class ChoicesKnob(Alternative):
    """A list of values to search among."""

    tag = "<choices>"
    choices: tuple[Any, ...] = Field(min_length=1, description="the values to search among")


class RangeKnob(Alternative):
    """A range of numbers to search in."""

    tag = "<range>"
    low: Any = Field(description="the smallest value")
    high: Any = Field(description="the largest value, itself included")
    log: bool = Field(False, description="search evenly in the logarithm")
    step: Any = Field(None, description=_STEP)
    points: int | None = Field(
        None, ge=2, le=MAX_POINTS, description="grid only: so many values, evenly spaced from low to high"
    )


class IntRangeKnob(RangeKnob):
    """A range of whole numbers to search in."""

    step: PositiveInt | None = Field(None, description=_STEP)


class FloatRangeKnob(RangeKnob):
    """A range of real numbers to search in."""

    step: PositiveFloat | None = Field(None, description=_STEP)


def searchable(record: type[Record], section: str) -> type[Record]:
    """The record as the study file's `section` takes it."""
    fields: dict[str, Any] = {
        name: _field(f"{record.__name__}_{name}", field, section) for name, field in record.model_fields.items()
    }
    return create_model(record.__name__, __base__=record, __module__=__name__, __doc__=record.__doc__, **fields)


def listed(alternative: Alternative) -> Sequence[Value] | None:
    """The values that it may give (with `each`, to a layer); None for a range of real numbers."""
    match alternative:
        case ValueKnob(value=value):
            return (value,)
        case ChoicesKnob(choices=choices):
            return choices
        case IntRangeKnob(low=low, high=high, step=step):
            return range(low, high + 1, step or 1)
        case _:
            return None


def each_of(alternative: Alternative) -> str | None:
    """The path that counts the layers, where the alternative is searched for each of them."""
    path: str | None = getattr(alternative, "each", None)
    return path


def value_type(field: FieldInfo) -> Any:
    """The type of one value of a field, with its constraints; of one layer's value where the field is PerLayer."""
    annotation: Any = field.annotation
    if _mark(field, PerLayer):
        annotation = next(part for part in get_args(annotation) if get_origin(part) is not tuple)
    constraints = tuple(item for item in field.metadata if not isinstance(item, PerLayer | Fixed))
    return Annotated[(annotation, *constraints)] if constraints else annotation


def _field(name: str, field: FieldInfo, section: str) -> tuple[Any, Any]:
    described = Field(field.default, description=field.description)
    if fixed := _mark(field, Fixed):
        return Annotated[value_type(field), BeforeValidator(_refuse_search(fixed.why))], described
    if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
        return field.annotation, described  # it tells the records of a section apart
    return _knob(name, value_type(field), _mark(field, PerLayer), section), described


def _knob(name: str, value: Any, per_layer: PerLayer | None, section: str) -> Any:
    """The union of all that the module's docstring lists, as far as it fits the type of the value."""
    number = {int: IntRangeKnob, float: FloatRangeKnob}.get(_base(value))
    fixed = Union[value, tuple[value, ...]] if per_layer else value  # noqa: UP007  made at run time
    searched: dict[str, Any] = {}
    if per_layer:
        each = Literal[f"{section}.{per_layer.layers}"]  # type: ignore[valid-type]
        searched["each"] = (each | None, Field(None, description="search a value for each layer"))
    kinds = [
        _derive(f"{name}_value", ValueKnob, value=(fixed, ...), when=(When, ...)),
        _derive(
            f"{name}_choices", ChoicesKnob, choices=(_some(value), ChoicesKnob.model_fields["choices"]), **searched
        ),
    ]
    if number:
        low, high = (Field(description=number.model_fields[end].description) for end in ("low", "high"))
        kinds.append(_derive(f"{name}_range", number, low=(value, low), high=(value, high), **searched))
    tagged = [Annotated[kind, Tag(kind.tag)] for kind in kinds]
    choose = Discriminator(_tag_of(is_number=number is not None))
    cases = _some(Annotated[union_of(tagged), choose])
    layers = [Annotated[_some(value), Tag("<layers>")]] if per_layer else []
    return Annotated[
        union_of([Annotated[value, Tag("<fixed>")], *tagged, Annotated[cases, Tag("<cases>")], *layers]), choose
    ]


def _tag_of(*, is_number: bool) -> Callable[[Any], str]:
    """Which member of the union a piece of the file is meant to be."""

    def tag(value: Any) -> str:
        if isinstance(value, Alternative):
            return value.tag
        if isinstance(value, dict):
            if "choices" in value or "value" in value:
                return ChoicesKnob.tag if "choices" in value else ValueKnob.tag
            return RangeKnob.tag if is_number or value.keys() & {"low", "high"} else ChoicesKnob.tag
        if isinstance(value, list | tuple):
            return "<cases>" if any(isinstance(item, dict | Alternative) for item in value) else "<layers>"
        return "<fixed>"

    return tag


def _refuse_search(why: str) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        if isinstance(value, dict | list):
            raise PydanticCustomError("fixed", "cannot be searched ({why}); give one value", {"why": why})
        return value

    return refuse


def _derive(name: str, base: type[Record], **fields: Any) -> Any:
    return create_model(name, __base__=base, __module__=__name__, __doc__=base.__doc__, **fields)


def _some(value: Any) -> Any:
    return Annotated[tuple[value, ...], Field(min_length=1)]


def union_of(members: Sequence[Any]) -> Any:
    return Union[tuple(members)]  # noqa: UP007  made at run time


def _base(value: Any) -> Any:
    """`int` of `Annotated[int, Ge(1)] | None`."""
    if get_origin(value) is Annotated:
        return _base(get_args(value)[0])
    if get_origin(value) in (Union, UnionType):
        [value] = [part for part in get_args(value) if part is not NoneType]
        return _base(value)
    return value


def _mark(field: FieldInfo, kind: type[_Mark]) -> _Mark | None:
    return next((item for item in field.metadata if isinstance(item, kind)), None)
