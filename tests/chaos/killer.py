"""Who kills: supervisors and children, at random, while a study goes on."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field

from tests.chaos import checks
from tests.chaos.harness import Arena, Process, frozen, held_by, until
from tests.chaos.stub import Behaviour
from tuner.storage.studies import StudyRecord


@dataclass
class Killer:
    """Keeps a number of workers on a study and kills some of their processes while it goes on."""

    arena: Arena
    study: StudyRecord
    behaviour: Behaviour
    rng: random.Random
    options: dict[str, str] = field(default_factory=dict)  # of its workers
    supervisors_share: float = 0.5  # of its victims; the others are children
    workers: list[Process] = field(default_factory=list)
    supervisors: int = 0
    children: int = 0

    def start(self, count: int) -> None:
        self.workers += [
            self.arena.worker(self.study.name, behaviour=self.behaviour, **self.options) for _ in range(count)
        ]

    def kill_one(self) -> None:
        """A supervisor or a child, whose trial has not died twice."""
        until(self._try, "a victim", 120, pause=0.01)

    def _try(self) -> bool:
        victim = self.rng.choice(self.workers)
        with frozen(victim):  # it cannot claim another trial between the look and the shot
            if not victim.alive or not self._may_die(victim):
                return False
            if self.rng.random() < self.supervisors_share:
                victim.kill()
                self.supervisors += 1
                self.workers.remove(victim)
                self.start(1)
                return True
            children = victim.children()
            if not children:
                return False
            self.rng.choice(children).send_signal(signal.SIGKILL)
            self.children += 1
            return True

    def _may_die(self, victim: Process) -> bool:
        """Whether it is up and holds a trial, and none that has died twice."""
        held = held_by(self.arena, victim)
        return bool(held) and all(trial.deaths < checks.SURVIVED_DEATHS for trial in held)

    def kill(self, count: int, epochs: int, seconds: float = 600.0) -> None:
        """Kills at random moments of the study's progress, in epochs done, all before the last twentieth of it."""
        for moment in sorted(self.rng.randrange(1, int(0.95 * epochs)) for _ in range(count)):
            until(lambda moment=moment: self.arena.epochs(self.study) >= moment, f"epoch {moment}", seconds)  # type: ignore[misc]
            self.kill_one()

    def until_finished(self, seconds: float = 600.0) -> None:
        until(lambda: self.arena.finished(self.study), "the study is finished", seconds)
        assert [worker.wait(30) for worker in self.workers] == [0] * len(self.workers)
