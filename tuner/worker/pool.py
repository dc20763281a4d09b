"""A worker's child processes and the slots that they serve: started, replaced, and more of them where that pays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tuner.worker.children import Child
from tuner.worker.growth import Growth
from tuner.worker.slots import Slot, Trainer, Work
from tuner.worker.usage import gpu_memory_share

log = logging.getLogger("tuner.worker")

StartChild = Callable[[int], Child]  # the nth of the worker


class Pool:
    def __init__(
        self, start_child: StartChild, artifacts: Path, *, slots: int, children: int | None, growing: bool
    ) -> None:
        """`children`: processes among which the slots are divided, by default one each; `growing`: each of them gets
        more slots as long as it pays.
        """
        self.trainers: list[Trainer] = []
        self.slots: list[Slot] = []
        self._start_child = start_child
        self._artifacts = artifacts
        self._first_slots = slots
        self._child_count = slots if children is None else min(children, slots)
        self._growing = growing

    def start(self) -> None:
        """Waits for the fork server to import torch."""
        for index in range(self._child_count):
            child = self._start_child(index)
            growth = Growth() if self._growing else None
            self.trainers.append(Trainer(index=index, child=child, artifacts=self._artifacts, growth=growth))
        for index in range(self._first_slots):
            self._open_slot(self.trainers[index % self._child_count])

    def children(self) -> list[tuple[int, Child]]:
        """With the numbers of their trainers."""
        return [(trainer.index, trainer.child) for trainer in self.trainers]

    @property
    def works(self) -> list[tuple[Slot, Work]]:
        return [(slot, work) for slot in self.slots for work in slot.works]

    def replace(self, trainer: Trainer) -> None:
        """Another child takes the place of one that is gone, or that is not to be trusted any more."""
        trainer.child.kill()
        trainer.up, trainer.child = False, self._start_child(trainer.index)

    def grow(self, trainer: Trainer, now: float) -> list[Slot]:
        """Opens slots, or closes them to further trials, as a child's speed has it; those that are new."""
        if trainer.growth is None:
            return []
        at_work = all(slot.works for slot in trainer.slots if not slot.retired)
        in_use = partial(gpu_memory_share, trainer.index)
        wanted = trainer.growth.look(now, trainer.child.steps, at_work=at_work, memory_share=in_use)
        for slot in trainer.slots[wanted:]:
            if not slot.retired:
                log.info("slot %d is closed: it made the others slower", slot.index)
            slot.retired = True
        opened = [self._open_slot(trainer) for _ in range(wanted - len(trainer.slots))]
        for slot in opened:
            log.info("slot %d is opened", slot.index)
        return opened

    def kill(self) -> None:
        for trainer in self.trainers:
            trainer.child.kill()

    def _open_slot(self, trainer: Trainer) -> Slot:
        slot = Slot(index=len(self.slots), trainer=trainer)
        self.slots.append(slot)
        trainer.slots.append(slot)
        return slot
