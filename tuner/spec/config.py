"""What a trial is made of, every knob a value: the frozen records that training sees.

A knob is declared here, once, as a plain field. The study file's model (`tuner.spec.study_file`) is derived from these
classes: wherever a field of `model` or `training` takes a value, the file may give a range instead, unless the field
is marked `Fixed`. A field marked `PerLayer` may also hold one value a layer (`each:` in the file).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Frozen and strict: no unknown keys, no silent conversion of '1' or true to a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Fixed:
    """Marks a field that is part of the study's frame and cannot be searched."""

    why: str


@dataclass(frozen=True)
class PerLayer:
    """Marks a field that may hold one value for each of `layers`."""

    layers: str = "layers"


Activation = Literal["relu", "gelu", "silu", "elu", "leaky_relu", "tanh", "sigmoid"]
Width = Annotated[int, Field(ge=1, le=65_536)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0, description="share of activations set to zero while training")]


Task = Literal["classification", "forecast"]
Kind = Literal["image", "sequence", "vector"]  # what one example is: (C, H, W), (steps, features), (features,)

# --- data -----------------------------------------------------------------------------------------------------------


class Split(Record):
    """How examples are dealt out; its seed is its own, so that every search sees the same parts."""

    validation: float = Field(0.15, gt=0.0, lt=1.0, description="share of examples that search is judged on")
    test: float = Field(0.15, gt=0.0, lt=1.0, description="share of examples that search never sees")
    seed: int = Field(0, ge=0)


class PublishedTestSplit(Record):
    """For data sets published with a test part: only validation is cut out of the training part."""

    validation: float = Field(0.1, gt=0.0, lt=1.0, description="share of the training part that search is judged on")
    seed: int = Field(0, ge=0)


class DigitsData(Record):
    """scikit-learn's bundled handwritten digits: 1,797 grey images of 8 x 8, ten classes."""

    task: ClassVar[Task] = "classification"
    kind: ClassVar[Kind] = "image"
    name: Literal["digits"] = "digits"
    split: Split = Split()


class FashionMnistData(Record):
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28 x 28, ten classes; the test part is the published one."""

    task: ClassVar[Task] = "classification"
    kind: ClassVar[Kind] = "image"
    name: Literal["fashion_mnist"] = "fashion_mnist"
    split: PublishedTestSplit = PublishedTestSplit()


Etth1Column = Literal["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]


class Etth1Data(Record):
    """Hourly load and oil temperature of a transformer station, split as in the Informer paper (12/4/4 months)."""

    task: ClassVar[Task] = "forecast"
    kind: ClassVar[Kind] = "sequence"
    name: Literal["etth1"] = "etth1"
    inputs: tuple[Etth1Column, ...] = Field(("OT",), min_length=1, description="columns that the model reads")
    target: Etth1Column = Field("OT", description="column that it forecasts")
    window: int = Field(96, ge=1, le=2_000, description="hours that the model sees")
    horizon: int = Field(24, ge=1, le=1_000, description="hours that it forecasts")


class SpiralData(Record):
    """The two arms of TensorFlow Playground's spiral, made from the split's seed."""

    task: ClassVar[Task] = "classification"
    kind: ClassVar[Kind] = "vector"
    name: Literal["spiral"] = "spiral"
    points: int = Field(500, ge=10, le=1_000_000, description="examples in all")
    noise: float = Field(0.0, ge=0.0, le=0.5, description="0.5 is the Playground's 50 %")
    split: Split = Split(validation=0.25, test=0.25)


DataConfig = Annotated[DigitsData | FashionMnistData | Etth1Data | SpiralData, Field(discriminator="name")]


# --- model ----------------------------------------------------------------------------------------------------------


class CnnConfig(Record):
    """Blocks of convolution, batch norm, activation, pooling and dropout; then a dense layer and the output."""

    reads: ClassVar[tuple[Kind, ...]] = ("image",)
    family: Literal["cnn"] = "cnn"
    layers: int = Field(2, ge=1, le=16, description="convolution blocks")
    channels: Annotated[Width | tuple[Width, ...], PerLayer()] = Field(32, description="filters of a block")
    kernel: int = Field(3, ge=1, le=15, description="side of a filter")
    pooling: Literal["max", "average", "none"] = Field("max", description="halves the map after each block")
    batch_norm: bool = True
    dropout: Dropout = 0.0
    dense_units: int = Field(64, ge=0, le=65_536, description="width of the dense layer before the output; 0: none")
    activation: Activation = "relu"


class RnnConfig(Record):
    """Recurrent layers over a sequence; the last state is read out by a linear layer."""

    reads: ClassVar[tuple[Kind, ...]] = ("image", "sequence")
    family: Literal["rnn"] = "rnn"
    cell: Literal["lstm", "gru"] = "lstm"
    layers: int = Field(1, ge=1, le=8, description="recurrent layers")
    units: Annotated[Width | tuple[Width, ...], PerLayer()] = Field(64, description="width of the state")
    dropout: Dropout = 0.0
    bidirectional: bool = False
    relative_to_last: bool = Field(False, description="forecasts only: predict the difference to the last value seen")


class MlpConfig(Record):
    """Dense layers with an activation and dropout after each."""

    reads: ClassVar[tuple[Kind, ...]] = ("image", "sequence", "vector")
    family: Literal["mlp"] = "mlp"
    layers: int = Field(2, ge=0, le=64, description="hidden layers")
    units: Annotated[Width | tuple[Width, ...], PerLayer()] = Field(64, description="width of a layer")
    activation: Activation = "relu"
    dropout: Dropout = 0.0


ModelConfig = Annotated[CnnConfig | RnnConfig | MlpConfig, Field(discriminator="family")]


# --- training and objective -----------------------------------------------------------------------------------------


class TrainingConfig(Record):
    epochs: Annotated[int, Fixed("the search's resource: pruners end trials early")] = Field(10, ge=1, le=100_000)
    batch_size: int = Field(64, ge=1, le=1_000_000)
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0.0, le=100.0)
    momentum: float = Field(0.0, ge=0.0, lt=1.0, description="sgd and rmsprop only")
    weight_decay: float = Field(0.0, ge=0.0, le=10.0)
    seed: Annotated[Literal["trial", "shared"], Fixed("it says where all randomness comes from")] = Field(
        "trial", description="shared: all trials start from the same weights and see the same order"
    )
    deterministic: Annotated[bool, Fixed("it holds for the study")] = Field(
        False, description="on a GPU: only operations that repeat to the bit (a CPU always repeats)"
    )
    engine: Annotated[Literal["auto", "single", "stacks"], Fixed("engines round differently")] = Field(
        "auto", description="stacks: train trials of one shape as one network; auto: what is faster, measured once"
    )
    precision: Annotated[Literal["auto", "float32", "bfloat16"], Fixed("trials are compared at one precision")] = Field(
        "auto", description="of the arithmetic; auto: float32. Weights are kept in float32 in any case"
    )


Metric = Literal["accuracy", "loss", "mse", "mae"]
DIRECTIONS: dict[Metric, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize",
    "loss": "minimize",
    "mse": "minimize",
    "mae": "minimize",
}


METRICS: dict[Task, tuple[Metric, ...]] = {
    "classification": ("accuracy", "loss"),
    "forecast": ("mse", "mae", "loss"),
}


class ObjectiveConfig(Record):
    metric: Metric = Field("accuracy", description="measured on the validation part; of a forecast by default mse")
    value: Literal["best", "last"] = Field("best", description="the epoch whose value and weights stand for the trial")

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return DIRECTIONS[self.metric]


class TrialConfig(Record):
    """Everything that training needs to know of a trial, besides its seed and number."""

    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    objective: ObjectiveConfig
