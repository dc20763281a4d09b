"""Passes over the training data, step by step: as they come on a CPU, on a GPU recorded once and replayed.

A step of a small network takes a GPU less time than it takes Python to launch its hundred kernels. A CUDA graph
launches them at once. It repeats the same work on the same memory, so a step that is to be captured may read nothing
that changes but tensors that stay where they are: where the pass stands is one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from tuner.training.turns import Turn, Turns, done

log = logging.getLogger("tuner.training")

CHECK_STEPS = 100  # between two looks at what has come of them; so far a GPU may lag behind
EAGER_STEPS = 3  # of each batch size, before it is captured: libraries choose algorithms, optimizers make their state

Index = int | Tensor  # of a step within its pass; a tensor (1,) where a captured step is to read it
Batch = TypeVar("Batch")
Replay = Callable[[], None]
Record = Callable[[Callable[[], None], Sequence[torch.Generator]], Replay]


class Learner(Protocol[Batch]):
    """A network that learns batch by batch. Orders are positions of examples, (…, n) on the CPU."""

    @property
    def device(self) -> torch.device: ...

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """From which its steps draw."""

    def batches(self, orders: Tensor, size: int) -> Iterator[Batch]:
        """Of `size` examples in their order, and one of those that remain."""

    def gather(self, chosen: Tensor) -> Batch:
        """One batch, of chosen examples (…, size) on the device."""

    def learn(self, batch: Batch, index: Index) -> None:
        """From the `index`th batch of the pass."""

    def check(self) -> None:
        """Raises Diverged where it is of no use to go on; called when the device has done all steps so far."""


class Eager:
    """On a CPU; on a GPU where the data does not fit into its memory."""

    def one_pass(self, network: Learner[Batch], orders: Tensor, size: int) -> Turns[None]:
        """The network learns from all examples, in these orders."""
        for index, batch in enumerate(network.batches(orders, size)):
            network.learn(batch, index)
            if (index + 1) % CHECK_STEPS == 0:
                yield from done(network.device)
                network.check()
            yield Turn.STEPPED


class Captured:
    """The same for one network on a GPU. What cannot be captured stays eager, which is said once.

    To be used in one stream that is not the default one.
    """

    def __init__(self, record: Record | None = None) -> None:
        """`record` turns a step into what replays it; by default a CUDA graph."""
        self._record = record or _Graphs()
        self._cursor: _Cursor | None = None
        self._eager_steps: dict[int, int] = {}  # batch size -> steps until it is captured
        self._replays: dict[int, Replay] = {}  # batch size -> a captured step
        self._capturing = True

    def one_pass(self, network: Learner[Batch], orders: Tensor, size: int) -> Turns[None]:
        """Broken off, it waits for the device: a graph and its memory must outlive their last replay."""
        if self._cursor is None:
            self._cursor = _Cursor(orders.shape, size, network.device)
        self._cursor.begin(orders)
        count = orders.shape[-1]
        stream = torch.cuda.current_stream() if network.device.type == "cuda" else None
        try:
            for start in range(0, count, size):
                self._step(network, self._cursor, min(size, count - start))
                if (start // size + 1) % CHECK_STEPS == 0:
                    yield from done(network.device)
                    network.check()
                yield Turn.STEPPED
            yield from done(network.device)
        finally:
            if stream is not None:
                stream.synchronize()

    def _step(self, network: Learner[Batch], cursor: _Cursor, count: int) -> None:
        def learn() -> None:
            network.learn(network.gather(cursor.take(count)), cursor.index)

        if count in self._replays:
            self._replays[count]()
            return
        left = self._eager_steps.setdefault(count, EAGER_STEPS)
        if left == 0 and self._capturing:
            try:
                self._replays[count] = self._record(learn, network.generators)
            except RuntimeError as error:  # nothing was computed
                self._capturing = False
                reason = str(error).partition("\n")[0]
                _say_once(f"steps of this kind cannot be captured and are launched one by one: {reason}")
            else:
                self._replays[count]()
                return
        self._eager_steps[count] = max(0, left - 1)
        learn()


class _Cursor:
    """Where a pass stands, in tensors that stay where they are."""

    def __init__(self, shape: Sequence[int], size: int, device: torch.device) -> None:
        self.index = torch.zeros(1, dtype=torch.int64, device=device)  # of the step whose examples were taken last
        self._orders = torch.zeros(tuple(shape), dtype=torch.int64, device=device)
        self._next = torch.zeros((), dtype=torch.int64, device=device)
        self._offsets = torch.arange(size, device=device)

    def begin(self, orders: Tensor) -> None:
        self._orders.copy_(orders)
        self._next.zero_()
        self.index.fill_(-1)

    def take(self, count: int) -> Tensor:
        """The next examples (…, count)."""
        chosen = self._orders.index_select(-1, self._next + self._offsets[:count])
        self._next.add_(count)
        self.index.add_(1)
        return chosen


class _Graphs:
    """Records CUDA graphs of one network; they share their memory, since they are replayed one after the other."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], None], generators: Sequence[torch.Generator]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # Other threads of the process may go on, autograd's among them.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
        ):
            step()
        replay: Replay = graph.replay
        return replay


@cache
def _say_once(message: str) -> None:
    log.warning(message)


def steps_on(device: torch.device) -> Eager | Captured:
    """For one network."""
    return Captured() if device.type == "cuda" else Eager()
