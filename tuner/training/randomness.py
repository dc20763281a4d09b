"""All random numbers of a trial: each purpose and each epoch has a generator of its own.

Since every generator begins anew with each epoch, a checkpoint at an epoch's end needs no state of any generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tuner.seeds import derive_seed

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """Where a trial's generators come from: the study's seed, and the trial's number unless all trials share."""

    seed: int
    number: int | None  # None: `training.seed: shared`, all trials draw the same

    def generator(self, purpose: str, epoch: int = 0, device: torch.device = CPU) -> torch.Generator:
        """A fresh generator; the same arguments always give the same numbers on the same kind of device."""
        return torch.Generator(device).manual_seed(self.seed_of(purpose, epoch))

    def seed_of(self, purpose: str, epoch: int = 0) -> int:
        """That of such a generator: one that is seeded with it anew goes on like a fresh one."""
        trial = () if self.number is None else (self.number,)
        return derive_seed(self.seed, *trial, purpose, epoch)
