"""Many at once: exactly the budget, no trial given out twice, tables made once."""

from __future__ import annotations

import threading
import time

from tests.chaos import checks
from tests.chaos.harness import Arena, Figures, Form
from tests.chaos.stub import Behaviour
from tuner.storage.connection import Database
from tuner.storage.schema import check_schema


class Connections:
    """Samples how many clients the server has while something goes on."""

    def __init__(self, url: str) -> None:
        self.most = 0
        self._db = Database(url, application="sampler")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Connections:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._db.close()

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            ((count,),) = self._db.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            self.most = max(self.most, count)


def test_racing_budget(arena: Arena, form: Form, figures: Figures) -> None:
    """More workers than trials, started at once."""
    workers, trials, repeats = form((12, 9, 1), (64, 50, 20))
    most = 0
    for repeat in range(repeats):
        study = arena.study(name=f"race-{repeat}", budget__trials=trials, training__epochs=2)
        with Connections(arena.url) as connections:
            racers = [arena.worker(study.name, behaviour=Behaviour(epoch_seconds=0.02)) for _ in range(workers)]
            assert [racer.wait(300) for racer in racers] == [0] * workers
        most = max(most, connections.most)
        checks.assert_exactly(arena, study, trials)
        checks.assert_nothing_running(arena, study)
        checks.assert_no_duplicates(arena, study)
        checks.assert_attempts_recorded(arena, study)
        checks.assert_no_deaths(arena, study)
    assert most <= workers + 6
    figures.update(workers=workers, repeats=repeats, trials_each=trials, most_connections=most)


def test_claims(arena: Arena, form: Form, figures: Figures) -> None:
    processes, trials = form((4, 400), (16, 10_000))
    study = arena.study(budget__trials=trials)
    start_at = time.time() + 1.0
    claimers = [
        arena.start("claimer", url=arena.url, study=study.study_id, start_at=start_at) for _ in range(processes)
    ]
    assert [claimer.wait(1200) for claimer in claimers] == [0] * processes
    checks.assert_exactly(arena, study, trials)
    checks.assert_no_duplicates(arena, study)
    checks.assert_attempts_recorded(arena, study)
    checks.assert_no_deaths(arena, study)
    given = [int(number) for claimer in claimers for number in claimer.log.read_text().split()]
    assert sorted(given) == list(range(trials))
    figures.update(claims=trials, processes=processes, double=len(given) - len(set(given)))


def test_first_launch_race(arena: Arena, form: Form, figures: Figures) -> None:
    processes = form(10, 40)
    with arena.empty_database() as url:
        start_at = time.time() + 2.0
        racers = [arena.start("migrator", url=url, start_at=start_at) for _ in range(processes)]
        assert [racer.wait(120) for racer in racers] == [0] * processes, [racer.log.read_text() for racer in racers]
        with Database(url) as db:
            check_schema(db)
            ((revisions,),) = db.execute("SELECT count(*) FROM tuner.alembic_version")
    assert revisions == 1
    errors = sum("Traceback" in racer.log.read_text() for racer in racers)
    figures.update(processes=processes, errors=errors)
