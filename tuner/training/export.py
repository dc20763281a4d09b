"""A trained model as a folder of two files that needs nothing else: no database, no data set, no checkpoint.

<folder>/model.safetensors    weights of the epoch that stands for the trial
<folder>/config.yaml          the trial's configuration, what is needed of its data, versions
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from tuner import __version__
from tuner.errors import ArtifactError, NotFound
from tuner.spec.config import TrialConfig
from tuner.training import checkpoint, checkpoint_file
from tuner.training.checkpoint import Best
from tuner.training.data import DataInfo
from tuner.training.models import build, with_weights
from tuner.training.models.layers import Normalise

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"


def export(config: TrialConfig, kept: Path, info: DataInfo, to: Path) -> Best:
    """Writes the best epoch of the checkpoint `kept` into the folder `to`, made if need be; returns that epoch.

    Raises ArtifactError where the checkpoint cannot be read or the folder cannot be written.
    """
    best = checkpoint.load(kept).best
    document = {
        "trial": config.model_dump(mode="json"),
        "data": {**asdict(info), "input_shape": list(info.input_shape)},
        "epoch": best.epoch,
        "value": best.value,
        "versions": {"tuner": __version__, "torch": str(torch.__version__)},
    }
    text = io.BytesIO()
    YAML(typ="safe", pure=True).dump(document, text)
    weights = save({name: tensor.contiguous() for name, tensor in best.model.items()})
    try:
        to.mkdir(parents=True, exist_ok=True)
        checkpoint_file.write_atomically(to / WEIGHTS, weights)
        checkpoint_file.write_atomically(to / CONFIG, text.getbuffer())
    except OSError as error:
        raise ArtifactError(f"cannot export to {to}: {error.strerror}") from error
    return best


def load_model(folder: str | Path) -> nn.Module:
    """The model that `tuner trial export` wrote, on the CPU and in eval mode.

    It takes inputs as the data set has them (uint8 images (n, channels, height, width), float32 windows
    (n, steps, features) or vectors (n, features)) and gives logits (n, classes) or a forecast (n, horizon).
    Raises NotFound where there is no export, ArtifactError where it is damaged.
    """
    folder = Path(folder)
    try:
        document = YAML(typ="safe", pure=True).load((folder / CONFIG).read_bytes())
        weights = load((folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise NotFound(f"no exported model in {folder}: {error.strerror}: {error.filename}") from error
    except (YAMLError, SafetensorError) as error:
        raise ArtifactError(f"the exported model in {folder} is damaged: {error}".splitlines()[0]) from error
    config, info = _read(document, folder)
    return nn.Sequential(Normalise(info.mean, info.std), with_weights(build(config.model, info), weights)).eval()


def _read(document: Any, folder: Path) -> tuple[TrialConfig, DataInfo]:
    try:
        # by way of JSON, in which pydantic takes lists for tuples
        config = TrialConfig.model_validate_json(json.dumps(document["trial"]))
        info = DataInfo(**{**document["data"], "input_shape": tuple(document["data"]["input_shape"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder / CONFIG} is not what this version of tuner exports") from error
    return config, info
