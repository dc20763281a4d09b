"""Plain Optuna with PyTorch, TensorDataset and DataLoader: what a competent user writes without tuner.

    python benchmarks/plain.py job.json                              # one process, torch's default threads
    python benchmarks/plain.py job.json --processes 2 --threads 1    # a process for each core

`job.json` (see `benchmarks/jobs.py`) names the prepared data, the knobs that are the same for all trials, Optuna's
distributions of the others, and the points to try. Processes share the trials by a queue, so that none waits for
another. Every trial keeps its curve. One process keeps the study in memory, Optuna's default; several share a journal
file, which takes a fifth of SQLite's time.
Prints JSON: the value of each trial (null: its loss became infinite), and when the first epoch was reported.

Imports nothing of tuner.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, json_to_distribution
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

Knobs = Mapping[str, Any]
Job = Mapping[str, Any]
Report = Callable[[int, float], None]  # epoch, from 1, and its value

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}
EVALUATION_BATCH = 256


class Diverged(Exception):
    """The loss is not a finite number."""


# --- models ----------------------------------------------------------------------------------------------------------


class Lstm(nn.Module):
    def __init__(self, knobs: Knobs, features: int, outputs: int) -> None:
        super().__init__()
        between = knobs["dropout"] if knobs["layers"] > 1 else 0.0  # of one layer torch warns
        self.lstm = nn.LSTM(features, knobs["units"], knobs["layers"], batch_first=True, dropout=between)
        self.dropout = nn.Dropout(knobs["dropout"])
        self.readout = nn.Linear(knobs["units"], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(inputs)
        return self.readout(self.dropout(hidden[-1]))


def cnn(knobs: Knobs, shape: tuple[int, ...], outputs: int) -> nn.Module:
    channels, side, _ = shape
    activation = ACTIVATIONS[knobs["activation"]]
    dropout = [nn.Dropout(knobs["dropout"])] if knobs["dropout"] else []
    layers: list[nn.Module] = []
    for _ in range(knobs["layers"]):
        # A convolution before a batch norm needs no bias.
        layers.append(nn.Conv2d(channels, knobs["channels"], knobs["kernel"], padding="same", bias=False))
        layers += [nn.BatchNorm2d(knobs["channels"]), activation(), nn.MaxPool2d(2), *dropout]
        channels, side = knobs["channels"], side // 2
    layers += [nn.Flatten(), nn.Linear(channels * side * side, knobs["dense_units"]), activation(), *dropout]
    return nn.Sequential(*layers, nn.Linear(knobs["dense_units"], outputs))


def mlp(knobs: Knobs, shape: tuple[int, ...], outputs: int) -> nn.Module:
    (features,) = shape
    layers: list[nn.Module] = []
    for _ in range(knobs["layers"]):
        layers += [nn.Linear(features, knobs["units"]), ACTIVATIONS[knobs["activation"]]()]
        if knobs["dropout"]:
            layers.append(nn.Dropout(knobs["dropout"]))
        features = knobs["units"]
    return nn.Sequential(*layers, nn.Linear(features, outputs))


def rnn(knobs: Knobs, shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Lstm(knobs, shape[-1], outputs)


MODELS: dict[str, Callable[[Knobs, tuple[int, ...], int], nn.Module]] = {"cnn": cnn, "mlp": mlp, "rnn": rnn}

# --- training --------------------------------------------------------------------------------------------------------


def build_optimizer(model: nn.Module, knobs: Knobs) -> torch.optim.Optimizer:
    if knobs["optimizer"] == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=knobs["learning_rate"],
            momentum=knobs["momentum"],
            weight_decay=knobs["weight_decay"],
        )
    return torch.optim.AdamW(model.parameters(), lr=knobs["learning_rate"], weight_decay=knobs["weight_decay"])


LOSSES = {"accuracy": F.cross_entropy, "mse": F.mse_loss}


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(dim=1) == targets).sum()


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(dim=1).sum()


SCORES = {"accuracy": correct, "mse": squared_error}  # sums over the examples of a batch


class Data:
    """Both parts, normalised and in memory."""

    def __init__(self, folder: Path) -> None:
        info = json.loads((folder / "info.json").read_text())
        self.shape = tuple(info["input_shape"])
        self.outputs: int = info["outputs"]
        self.train, self.validation = (self._part(folder, name, info) for name in ("train", "validation"))

    @staticmethod
    def _part(folder: Path, name: str, info: Mapping[str, Any]) -> TensorDataset:
        inputs = torch.from_numpy(np.load(folder / f"{name}_inputs.npy")).float()
        targets = torch.from_numpy(np.load(folder / f"{name}_targets.npy"))
        return TensorDataset((inputs - info["mean"]) / info["std"], targets)


def train(knobs: Knobs, data: Data, metric: str, seed: int, report: Report, device: str, loader_workers: int) -> None:
    """Raises Diverged."""
    torch.manual_seed(seed)
    model = MODELS[knobs["family"]](knobs, data.shape, data.outputs).to(device)
    optimizer = build_optimizer(model, knobs)
    options: dict[str, Any] = {
        "num_workers": loader_workers,
        "persistent_workers": loader_workers > 0,
        "pin_memory": device == "cuda",
    }
    train_loader = DataLoader(data.train, knobs["batch_size"], shuffle=True, **options)
    validation_loader = DataLoader(data.validation, EVALUATION_BATCH, **options)
    for epoch in range(1, knobs["epochs"] + 1):
        loss = train_epoch(model, train_loader, optimizer, LOSSES[metric], device)
        if not math.isfinite(loss):
            raise Diverged
        report(epoch, evaluate(model, validation_loader, metric, device))


def batches(loader: DataLoader[Any], device: str) -> Iterator[tuple[Tensor, Tensor]]:
    for inputs, targets in loader:
        yield inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def train_epoch(
    model: nn.Module, loader: DataLoader[Any], optimizer: torch.optim.Optimizer, loss_of: Any, device: str
) -> float:
    model.train()
    total = 0.0
    for inputs, targets in batches(loader, device):
        optimizer.zero_grad()
        loss = loss_of(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.inference_mode()
def evaluate(model: nn.Module, loader: DataLoader[Any], metric: str, device: str) -> float:
    model.eval()
    total = 0.0
    for inputs, targets in batches(loader, device):
        total += SCORES[metric](model(inputs), targets).item()
    return total / len(loader.dataset)  # type: ignore[arg-type]


# --- the study -------------------------------------------------------------------------------------------------------


def read_space(job: Job) -> dict[str, BaseDistribution]:
    return {name: json_to_distribution(text) for name, text in job["space"].items()}


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    knobs: dict[str, Any] = {}
    for name, kind in space.items():
        if isinstance(kind, optuna.distributions.CategoricalDistribution):
            knobs[name] = trial.suggest_categorical(name, kind.choices)
        elif isinstance(kind, optuna.distributions.IntDistribution):
            knobs[name] = trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
        elif isinstance(kind, optuna.distributions.FloatDistribution):
            knobs[name] = trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)
    return knobs


def work(study: optuna.Study, job: Job, options: argparse.Namespace) -> None:
    """One process: takes queued trials until none is left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    data, space = Data(Path(job["data"])), read_space(job)
    choose = max if job["direction"] == "maximize" else min

    def objective(trial: optuna.Trial) -> float:
        if trial.number >= len(job["points"]):  # the queue is empty: this trial is one too many
            trial.study.stop()
            raise optuna.TrialPruned
        curve: list[float] = []

        def report(epoch: int, value: float) -> None:
            trial.report(value, epoch)
            if not curve and trial.number == 0:
                trial.set_user_attr("first_epoch_at", time.time())
            curve.append(value)

        knobs = {**job["knobs"], **suggest(trial, space)}
        try:
            train(knobs, data, job["metric"], trial.number, report, options.device, options.loader_workers)
        except Diverged:
            raise optuna.TrialPruned from None
        return choose(curve)

    study.optimize(objective)


def work_on(journal: Path, name: str, job: Job, options: argparse.Namespace) -> None:
    # Queued trials need no sampler; the random one costs least.
    sampler = optuna.samplers.RandomSampler()
    work(optuna.load_study(study_name=name, storage=storage_in(journal), sampler=sampler), job, options)


def storage_in(journal: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, help="torch threads of a process (default: torch's own)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--loader-workers", type=int, default=0, help="of each DataLoader")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    job = json.loads(options.job.read_text())

    with tempfile.TemporaryDirectory() as scratch:
        journal = Path(scratch) / "journal"
        storage = storage_in(journal) if options.processes > 1 else None
        sampler = optuna.samplers.RandomSampler()
        study = optuna.create_study(storage=storage, direction=job["direction"], sampler=sampler)
        for point in job["points"]:
            study.enqueue_trial(point)
        if storage is None:
            work(study, job, options)
        else:
            # A fork has torch imported already; CUDA was not touched before it.
            fork = multiprocessing.get_context("fork")
            processes = [
                fork.Process(target=work_on, args=(journal, study.study_name, job, options))
                for _ in range(options.processes)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            if any(process.exitcode for process in processes):
                raise SystemExit("a process failed")
        trials = study.trials[: len(job["points"])]

    first_epoch_at = trials[0].user_attrs.get("first_epoch_at")
    values = [trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None for trial in trials]
    print(json.dumps({"values": values, "first_epoch_at": first_epoch_at}))


if __name__ == "__main__":
    main()
