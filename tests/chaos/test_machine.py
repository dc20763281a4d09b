"""A machine that takes workers away, has too little of everything, or fails while something is written."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.chaos import audit, checks
from tests.chaos.harness import Arena, Figures, Form, HeldTrial, Process, held_by, until
from tests.chaos.stub import Behaviour
from tuner.errors import ArtifactError
from tuner.states import StudyState
from tuner.storage.steering import set_state
from tuner.storage.studies import StudyRecord
from tuner.training import checkpoint_file
from tuner.worker.run import TRAINING

GRACE_SECONDS = 25  # that a scheduler leaves after SIGTERM
RECLAIM_SECONDS = 5  # after a lease has run out, until the trial trains again


def test_sigterm(arena: Arena, form: Form, figures: Figures) -> None:
    """At any moment of an epoch: of short ones, and of those that last longer than the patience of a worker."""
    total, at_once = form((6, 6), (50, 10))
    rng = form.random
    study = arena.study(budget__trials=100_000, training__epochs=20)
    slowest = 0.0
    for _ in range(total // at_once):
        epochs = [0.01, 0.1, 1.0, form(2.0, 5.0), form(2.0, 60.0)]
        workers = [
            arena.worker(study.name, behaviour=Behaviour(epoch_seconds=epochs[index % len(epochs)]))
            for index in range(at_once)
        ]
        for worker in workers:
            until(lambda worker=worker: held_by(arena, worker), "it trains")  # type: ignore[misc]
        time.sleep(rng.uniform(0.0, 2.0))
        trials = [held.trial_id for worker in workers for held in held_by(arena, worker)]
        told_at = time.monotonic()
        for worker in workers:
            worker.signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait(GRACE_SECONDS) == 130, worker.log.read_text()
        slowest = max(slowest, time.monotonic() - told_at)
        assert slowest < GRACE_SECONDS
        still = arena.rows(
            "SELECT number FROM tuner.lease WHERE trial_id = ANY (%(trials)s) AND lease_until IS NOT NULL",
            trials=trials,
        )
        assert still == []  # free, or ended by now
    checks.assert_no_deaths(arena, study)
    assert arena.number("SELECT count(*) FROM trials WHERE state = 'RUNNING'") == 0
    given_back = arena.number("SELECT count(*) FROM tuner.attempt WHERE ended = 'given_back'")
    set_state(arena.db, study.name, StudyState.STOPPING)
    arena.finish(study.name, workers=2)
    checks.assert_no_deaths(arena, study)
    checks.assert_gapless_curves(arena, study, 20)
    checks.assert_attempts_recorded(arena, study)
    figures.update(signals=total, given_back=given_back, slowest_exit=f"{slowest:.1f} s", deaths=0)


@pytest.fixture
def busy(arena: Arena) -> list[Process]:
    """As many busy processes as keep each core four times occupied."""
    return [arena.start("burner") for _ in range(4 * (os.cpu_count() or 1))]


def test_overload(arena: Arena, form: Form, figures: Figures, busy: list[Process]) -> None:
    """Heartbeats come from supervisors that get a fifth of a core at best: they are late, never lost."""
    workers_count, victims = form((3, 1), (8, 10))
    rng = form.random
    audit.install(arena)
    study = arena.study(budget__trials=100_000, training__epochs=10)
    behaviour = Behaviour(epoch_seconds=0.1, value_names_attempt=True)

    def start() -> Process:
        return arena.worker(
            study.name, behaviour=behaviour, url=audit.tagged(arena.url, f"worker-{len(arena.processes)}")
        )

    workers = [start() for _ in range(workers_count)]
    for worker in workers:
        until(lambda worker=worker: held_by(arena, worker), "it trains")  # type: ignore[misc]
    time.sleep(form(1.0, 2.0) * form.lease_seconds)
    slowest, reclaimed = 0.0, 0
    killed: list[int] = []
    while reclaimed < victims:
        worker, trials = _frozen_with_trials(arena, workers, rng)
        killed_at = arena.number("SELECT clock_timestamp()")
        worker.kill()
        killed.append(worker.pid)
        workers.remove(worker)
        workers.append(start())
        again = [attempt for trial in trials if (attempt := trial.next_attempt(arena)) is not None]
        slowest = max(slowest, *((attempt.started_at - killed_at).total_seconds() for attempt in again), 0.0)
        reclaimed += len(again)
    assert slowest <= form.lease_seconds + RECLAIM_SECONDS
    set_state(arena.db, study.name, StudyState.STOPPING)
    until(lambda: arena.finished(study), "the study ends")
    assert [worker.wait(60) for worker in workers] == [0] * len(workers)
    lost_by_the_living = arena.rows(
        """
        SELECT trial_id, attempt FROM tuner.attempt LEFT JOIN tuner.worker USING (worker_id)
        WHERE ended = 'lost' AND pid <> ALL (%(killed)s)""",
        killed=killed,
    )
    assert lost_by_the_living == []
    audit.assert_only_holders_wrote(arena)
    assert checks.deaths(arena, study) == reclaimed
    figures.update(busy_processes=len(busy), killed=len(killed), live_reclaimed=0, slowest_reclaim=f"{slowest:.1f} s")


def _frozen_with_trials(arena: Arena, workers: list[Process], rng: random.Random) -> tuple[Process, list[HeldTrial]]:
    """A worker that is stopped in the middle of a trial."""
    while True:
        worker = rng.choice(workers)
        worker.signal(signal.SIGSTOP)
        if trials := held_by(arena, worker):
            return worker, trials
        worker.signal(signal.SIGCONT)


# --- torn writes ----------------------------------------------------------------------------------------------------


def unreadable(arena: Arena, study: StudyRecord) -> list[str]:
    """Checkpoints that the database points to and that cannot be read."""
    found = []
    pointers = "SELECT trial_id, checkpoint FROM tuner.lease WHERE study_id = %(s)s AND checkpoint IS NOT NULL"
    for row in arena.rows(pointers, s=study.study_id):
        try:
            checkpoint_file.read(arena.artifacts / row.checkpoint)
        except ArtifactError as error:
            still = arena.rows("SELECT checkpoint FROM tuner.lease WHERE trial_id = %(t)s", t=row.trial_id)
            if still[0].checkpoint == row.checkpoint:  # else it was replaced just now
                found.append(str(error))
    return found


def assert_artifacts_are_swept(arena: Arena, study: StudyRecord) -> None:
    """What is left of each trial is its last checkpoint and its logs."""
    pointers = arena.rows("SELECT checkpoint FROM tuner.lease WHERE study_id = %(s)s", s=study.study_id)
    folder = arena.artifacts / study.folder
    files = {str(path.relative_to(arena.artifacts)) for path in folder.rglob("*") if path.is_file()}
    assert {file for file in files if not file.endswith(".log")} == {row.checkpoint for row in pointers}


def test_kills_while_checkpointing(arena: Arena, form: Form, figures: Figures) -> None:
    kills, epochs, rng = form(10, 200), 6, form.random
    study = arena.study(budget__trials=100_000, training__epochs=epochs)
    behaviour = Behaviour(epoch_seconds=0.02, checkpoint_epochs=1, checkpoint_bytes=4 * 2**20)
    worker = arena.worker(study.name, behaviour=behaviour, slots=2)
    done = 0
    until(lambda: arena.epochs(study) > 0, "a first epoch")
    while done < kills:
        writer = _writer(arena, study)
        if writer is not None:
            time.sleep(rng.uniform(0.0, 0.01))
            with contextlib.suppress(ProcessLookupError):
                os.kill(writer, signal.SIGKILL)
                done += 1
            assert unreadable(arena, study) == []
        assert worker.alive, worker.log.read_text()
    set_state(arena.db, study.name, StudyState.STOPPING)
    assert worker.wait(60) == 0
    checks.assert_nothing_running(arena, study)
    checks.assert_gapless_curves(arena, study, epochs)
    checks.assert_attempts_recorded(arena, study)
    assert unreadable(arena, study) == []
    assert_artifacts_are_swept(arena, study)
    logs = (arena.artifacts / study.folder).glob("*/*.log")
    anew = sum("begins anew" in log.read_text() for log in logs)
    assert anew == 0
    figures.update(kills=kills, deaths=checks.deaths(arena, study), unreadable=0)


def _writer(arena: Arena, study: StudyRecord) -> int | None:
    """A child that writes a checkpoint now, of a trial that may die once more."""
    trains = arena.rows(
        "SELECT trial_id, attempt FROM tuner.lease WHERE lease_until IS NOT NULL AND deaths < %(limit)s",
        limit=checks.SURVIVED_DEATHS,
    )
    for row in trains:
        with contextlib.suppress(FileNotFoundError):  # no checkpoint yet
            for path in (arena.artifacts / study.folder / f"{row.trial_id}" / f"{row.attempt}").iterdir():
                if path.suffix == ".unfinished":
                    return int(path.name.split(".")[-2])
    return None


def test_disk_full(arena: Arena, form: Form, figures: Figures, small_disk: Path) -> None:
    """The worker ends and says so, the last checkpoint stays, and where there is room again the trial goes on."""
    times, epochs = form((3, 200), (20, 1000))
    study = arena.study(budget__trials=1, training__epochs=epochs)
    slow = Behaviour(epoch_seconds=0.02, checkpoint_epochs=2, checkpoint_bytes=100_000)
    arena.artifacts.symlink_to(small_disk)
    filler = small_disk / "filler"
    for _ in range(times):
        kept = _pointer(arena)
        worker = arena.worker(study.name, behaviour=slow)
        until(lambda kept=kept: _pointer(arena) != kept, "another checkpoint")  # type: ignore[misc]
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(b"0" * 4096)
        assert worker.wait(60) == ArtifactError.exit_code, worker.log.read_text()
        assert "No space left on device" in worker.log.read_text()
        assert unreadable(arena, study) == []
        filler.unlink()
    checks.assert_no_deaths(arena, study)
    arena.finish(study.name)
    checks.assert_exactly(arena, study, 1)
    checks.assert_gapless_curves(arena, study, epochs)
    checks.assert_attempts_recorded(arena, study)
    assert arena.number("SELECT attempt FROM tuner.lease") == times + 1
    figures.update(times=times, unreadable=0, deaths=0)


def _pointer(arena: Arena) -> str | None:
    rows = arena.rows("SELECT checkpoint FROM tuner.lease")
    return rows[0].checkpoint if rows else None


# --- out of memory --------------------------------------------------------------------------------------------------

MEMORY = 4 * 2**30  # for a child's address space; torch alone takes less than one
FITS, TOO_MUCH = [8, 12, 16, 24], [33_000 + 500 * step for step in range(50)]  # units: of the latter 4.4 GB and more
GREEDY = """
study: greedy
data: {name: spiral, points: 100}
model: {family: mlp, layers: 2, units: {choices: [8, 16]}}
training: {epochs: 1, learning_rate: 0.01}
search: {method: grid}
budget: {}
"""


def test_out_of_memory(arena: Arena, form: Form, figures: Figures) -> None:
    """With torch, in address spaces that are too small."""
    trials = form(4, 50)
    study = arena.study(GREEDY, "greedy", model__units=f"{{choices: {TOO_MUCH[:trials]}}}")
    worker = arena.worker(study.name, training=TRAINING, limits={"RLIMIT_AS": MEMORY})
    assert worker.wait(300) == 0, worker.log.read_text()
    outcomes = arena.rows(
        "SELECT DISTINCT state::text, outcome, value_json::float8 AS constraint FROM trials JOIN tuner.lease "
        "USING (trial_id) LEFT JOIN trial_system_attributes AS attribute ON attribute.trial_id = trials.trial_id "
        "AND key = 'constraints:out_of_memory' WHERE lease.study_id = %(s)s",
        s=study.study_id,
    )
    assert outcomes == [("PRUNED", "out_of_memory", 1.0)]
    checks.assert_exactly(arena, study, trials, states=("PRUNED",))
    checks.assert_no_deaths(arena, study)
    figures.update(out_of_memory=trials, workers_dead=0)


def test_sampler_avoids_what_does_not_fit(arena: Arena, form: Form, figures: Figures) -> None:
    """Half of the choices are too large. One slot: the study repeats whole."""
    if not form.full:
        pytest.skip("in the full form only")
    trials, startup = 60, 10
    units = f"{{choices: {FITS + TOO_MUCH[:4]}}}"
    search = "{method: tpe, seed: 1}"
    study = arena.study(GREEDY, "learned", model__units=units, search=search, budget__trials=trials)
    arena.finish(study.name, training=TRAINING, limits={"RLIMIT_AS": MEMORY})
    checks.assert_no_deaths(arena, study)
    before, after = (
        arena.number(
            "SELECT count(*) FROM tuner.lease WHERE study_id = %(s)s AND outcome = 'out_of_memory' "
            "AND number >= %(first)s AND number < %(end)s",
            s=study.study_id,
            first=first,
            end=end,
        )
        for first, end in ((0, startup), (startup, trials))
    )
    assert after / (trials - startup) < 1 / 3
    figures.update(too_large=f"{before} of {startup} by random search, {after} of {trials - startup} by TPE")
