"""Workers that are frozen until others have their trials: nothing of what they still say is stored."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass

import psutil

from tests.chaos import audit, checks
from tests.chaos.harness import Arena, Figures, Form, HeldTrial, Process, held_by, until
from tests.chaos.stub import Behaviour
from tuner.states import StudyState
from tuner.storage.steering import set_state


@dataclass(frozen=True, kw_only=True)
class Zombie:
    worker: Process
    children: list[psutil.Process]  # frozen with it
    held: HeldTrial

    def thaw(self) -> None:
        for child in self.children:
            child.resume()
        self.worker.signal(signal.SIGCONT)


def freeze(arena: Arena, worker: Process, rng: random.Random) -> Zombie | None:
    """Stops a supervisor, and its child at even odds, if it holds a trial that may be lost once more."""
    worker.signal(signal.SIGSTOP)
    held = held_by(arena, worker)
    if not held or held[0].deaths >= checks.SURVIVED_DEATHS:
        worker.signal(signal.SIGCONT)
        return None
    children = worker.children() if rng.random() < 0.5 else []
    for child in children:
        child.suspend()
    return Zombie(worker=worker, children=children, held=held[0])


def test_zombies(arena: Arena, form: Form, figures: Figures) -> None:
    goal, at_once, others = form((3, 3, 3), (100, 10, 10))
    rng = form.random
    audit.install(arena)
    study = arena.study(budget__trials=10_000, training__epochs=20)
    behaviour = Behaviour(epoch_seconds=0.1, checkpoint_epochs=5, value_names_attempt=True)
    workers = [
        arena.worker(study.name, behaviour=behaviour, url=audit.tagged(arena.url, f"worker-{number}"))
        for number in range(at_once + others)
    ]
    time.sleep(form.lease_seconds)  # nothing is reaped before the database was seen alive for so long
    zombies = 0
    while zombies < goal:
        chosen: dict[int, Zombie] = {}
        while len(chosen) < at_once:
            worker = rng.choice(workers)
            if worker.pid not in chosen and (zombie := freeze(arena, worker, rng)) is not None:
                chosen[worker.pid] = zombie
            time.sleep(0.01)
        zombies += sum(zombie.held.next_attempt(arena) is not None for zombie in chosen.values())
        for zombie in chosen.values():
            zombie.thaw()
        time.sleep(1.0)
    set_state(arena.db, study.name, StudyState.STOPPING)
    until(lambda: arena.finished(study), "the study ends")
    assert [worker.wait(30) for worker in workers] == [0] * len(workers)
    trials = arena.number("SELECT count(*) FROM trials WHERE study_id = %(s)s", s=study.study_id)
    checks.assert_whole(arena, study, trials, 20)
    writes = audit.assert_only_holders_wrote(arena)
    refused = sum(worker.log.read_text().count("was given to another worker") for worker in workers)
    assert refused >= zombies
    figures.update(zombies=zombies, refused=refused, accepted=0, of_writes=writes)
