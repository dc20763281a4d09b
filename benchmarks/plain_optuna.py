"""The digits CNN tuned with plain Optuna and a DataLoader: what a competent user writes without tuner.

    python benchmarks/plain_optuna.py configurations.json FOLDER --processes 2 --threads 1

`configurations.json` is a list of trial configurations (data, model, training, objective) to be trained as they are,
FOLDER the prepared data (`tuner data fetch digits` prints it). Trials go to the storage that OPTUNA_STORAGE names, or
to a fresh SQLite file. Prints JSON; `seconds` runs from the study's creation to the end of the last process.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def suggest(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """The knobs of search_spaces/digits_cnn.yaml."""
    return {
        "layers": trial.suggest_int("layers", 1, 3),
        "channels": trial.suggest_categorical("channels", [16, 32, 64]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5, step=0.25),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128]),
        "optimizer": (optimizer := trial.suggest_categorical("optimizer", ["adamw", "sgd"])),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        "momentum": 0.9 if optimizer == "sgd" else 0.0,
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
    }


def read_configurations(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Knobs that are the same for all trials, and the suggested ones of each trial."""
    configurations = [entry["model"] | entry["training"] for entry in json.loads(path.read_text())]
    queue = []
    for number, knobs in enumerate(configurations):
        trial = optuna.trial.FixedTrial(knobs)
        if configurations[0] | suggest(trial) != knobs:
            raise SystemExit(f"configuration {number} is not in the space of `suggest`: adapt it")
        queue.append(trial.params)
    return configurations[0], queue


def load(folder: Path, name: str, mean: float, std: float) -> TensorDataset:
    images = torch.from_numpy(np.load(folder / f"{name}_inputs.npy")).float()
    return TensorDataset((images - mean) / std, torch.from_numpy(np.load(folder / f"{name}_targets.npy")))


def build_model(knobs: dict[str, Any], channels: int, side: int, classes: int) -> nn.Sequential:
    activation = ACTIVATIONS[knobs["activation"]]
    dropout = [nn.Dropout(knobs["dropout"])] if knobs["dropout"] else []
    layers: list[nn.Module] = []
    for _ in range(knobs["layers"]):
        layers.append(
            nn.Conv2d(channels, knobs["channels"], knobs["kernel"], padding="same", bias=not knobs["batch_norm"])
        )
        if knobs["batch_norm"]:
            layers.append(nn.BatchNorm2d(knobs["channels"]))
        layers += [activation(), nn.MaxPool2d(2), *dropout]
        channels, side = knobs["channels"], side // 2
    layers += [nn.Flatten(), nn.Linear(channels * side * side, knobs["dense_units"]), activation(), *dropout]
    return nn.Sequential(*layers, nn.Linear(knobs["dense_units"], classes))


def build_optimizer(model: nn.Module, knobs: dict[str, Any]) -> torch.optim.Optimizer:
    settings = {"lr": knobs["learning_rate"], "weight_decay": knobs["weight_decay"]}
    if knobs["optimizer"] == "sgd":
        settings["momentum"] = knobs["momentum"]
    return OPTIMIZERS[knobs["optimizer"]](model.parameters(), **settings)


def train_epoch(model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer) -> float:
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.inference_mode()
def accuracy(model: nn.Module, loader: DataLoader[Any]) -> float:
    model.eval()
    right = sum((model(images).argmax(dim=1) == labels).sum().item() for images, labels in loader)
    return right / len(loader.dataset)  # type: ignore[arg-type]


def work(study_name: str, storage: str, fixed: dict[str, Any], trials: int, folder: Path, threads: int | None) -> None:
    """One process: takes queued trials until none is left."""
    if threads is not None:
        torch.set_num_threads(threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    info = json.loads((folder / "info.json").read_text())
    train, validation = (load(folder, name, info["mean"], info["std"]) for name in ("train", "validation"))
    channels, side, _ = info["input_shape"]

    def objective(trial: optuna.Trial) -> float:
        if trial.number >= trials:  # the queue is empty: this trial is one too many
            trial.study.stop()
            raise optuna.TrialPruned
        knobs = fixed | suggest(trial)
        torch.manual_seed(trial.number)
        model = build_model(knobs, channels, side, info["outputs"])
        optimizer = build_optimizer(model, knobs)
        train_loader = DataLoader(train, knobs["batch_size"], shuffle=True)
        validation_loader = DataLoader(validation, 256)
        best = 0.0
        for epoch in range(1, knobs["epochs"] + 1):
            loss = train_epoch(model, train_loader, optimizer)
            if not math.isfinite(loss):
                raise optuna.TrialPruned
            value = accuracy(model, validation_loader)
            trial.report(value, epoch)
            best = max(best, value)
        return best

    # Queued trials need no sampler; the random one costs least.
    study = optuna.load_study(study_name=study_name, storage=storage, sampler=optuna.samplers.RandomSampler())
    study.optimize(objective)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, help="torch threads of a process (default: torch's own)")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fixed, queue = read_configurations(options.configurations)

    with tempfile.TemporaryDirectory() as scratch:
        storage = os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{scratch}/optuna.db"
        start = time.perf_counter()
        study = optuna.create_study(storage=storage, direction="maximize")
        for knobs in queue:
            study.enqueue_trial(knobs)
        arguments = (study.study_name, storage, fixed, len(queue), options.folder, options.threads)
        if options.processes == 1:
            work(*arguments)
        else:
            spawn = multiprocessing.get_context("spawn")
            processes = [spawn.Process(target=work, args=arguments) for _ in range(options.processes)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
        seconds = time.perf_counter() - start
        values = [trial.value for trial in study.trials[: len(queue)]]

    best = max(value for value in values if value is not None)
    print(json.dumps({"seconds": round(seconds, 2), "trials": len(values), "best": best, "values": values}))


if __name__ == "__main__":
    main()
