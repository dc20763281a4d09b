"""A database that crashes, stays away, or commits and does not say so: no worker dies, no row is lost or doubled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.chaos import checks
from tests.chaos.harness import Arena, Figures, Form, until
from tests.chaos.killer import Killer
from tests.chaos.proxy import LosingProxy
from tests.chaos.stub import Behaviour
from tuner.states import StudyState
from tuner.storage.steering import set_state
from tuner.storage.studies import StudyRecord

EPOCHS = 10


def crash(arena: Arena, down_seconds: float) -> None:
    """What `pg_ctl restart -m immediate` does, with a pause in the middle: recovery from the log follows."""
    before = progress(arena)
    postmaster = arena.server.status().pid
    assert postmaster is not None
    server = psutil.Process(postmaster)
    os.kill(postmaster, signal.SIGQUIT)
    server.wait(30)
    time.sleep(down_seconds)
    arena.server.start()
    after = progress(arena)
    assert all(after[trial] >= epoch for trial, epoch in before.items()), "what was stored is there"


def progress(arena: Arena) -> dict[int, int]:
    return {row.trial_id: row.epoch for row in arena.rows("SELECT trial_id, epoch FROM tuner.lease")}


def test_database_restarts(arena: Arena, form: Form, figures: Figures) -> None:
    downtimes = form([0.0, form.lease_seconds + 1], [0.0] * 10 + [30.0, 120.0])
    rng = form.random
    study = arena.study(budget__trials=100_000, training__epochs=EPOCHS)
    workers = [arena.worker(study.name, behaviour=Behaviour(epoch_seconds=0.1, checkpoint_epochs=3)) for _ in range(6)]
    until(lambda: arena.epochs(study) > 0, "a first epoch")
    for downtime in downtimes:
        time.sleep(rng.uniform(0.5, form(1.0, 4.0)))
        crash(arena, downtime)
        resumed_at = arena.epochs(study)
        until(lambda resumed_at=resumed_at: arena.epochs(study) > resumed_at, "training goes on")  # type: ignore[misc]
    time.sleep(form.lease_seconds + 1)  # so that whatever would be reaped wrongly is
    set_state(arena.db, study.name, StudyState.STOPPING)
    until(lambda: arena.finished(study), "the study ends")
    assert [worker.wait(30) for worker in workers] == [0] * len(workers)
    trials = _assert_whole(arena, study)
    checks.assert_no_deaths(arena, study)
    checks.assert_one_attempt(arena, study)
    figures.update(restarts=len(downtimes), longest_down=f"{max(downtimes):.0f} s", trials=trials, deaths=0)


@pytest.fixture
def proxy(arena: Arena, form: Form) -> Iterator[LosingProxy]:
    proxy = LosingProxy(arena.url, form.random)
    yield proxy
    proxy.close()


def test_lost_answers(arena: Arena, form: Form, figures: Figures, proxy: LosingProxy) -> None:
    """Also to those who say that a trial's process has died: each death is counted once."""
    cuts, kills = form((20, 4), (200, 40))
    study = arena.study(budget__trials=100_000, training__epochs=EPOCHS)
    behaviour = Behaviour(epoch_seconds=0.1, checkpoint_epochs=2)
    killer = Killer(arena, study, behaviour, form.random, {"url": proxy.url}, supervisors_share=0.0)
    killer.start(4)
    until(lambda: arena.epochs(study) > 0, "a first epoch")
    proxy.cuts_left = cuts
    for _ in range(kills):
        killer.kill_one()
        time.sleep(0.1)
    until(lambda: proxy.cuts_left == 0, "all answers are lost", 300)
    set_state(arena.db, study.name, StudyState.STOPPING)
    killer.until_finished()
    trials = _assert_whole(arena, study)
    deaths = checks.deaths(arena, study)
    assert 0 < deaths <= kills  # a child may be between two trials
    assert arena.rows("SELECT FROM tuner.attempt WHERE ended IN ('lost', 'given_back')") == []
    figures.update(
        answers_lost=cuts, of=dict(proxy.cut.most_common()), trials=trials, doubled=0, kills=kills, deaths=deaths
    )


def _assert_whole(arena: Arena, study: StudyRecord) -> int:
    """Each trial is there, once, as it would be without disturbance. Returns their number."""
    trials = int(arena.number("SELECT count(*) FROM trials WHERE study_id = %(s)s", s=study.study_id))
    checks.assert_whole(arena, study, trials, EPOCHS)
    undisturbed = arena.study(name="undisturbed", budget__trials=trials, training__epochs=EPOCHS)
    arena.finish(undisturbed.name, workers=2)
    checks.assert_equal(arena, study, undisturbed)
    return trials
