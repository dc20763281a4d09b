"""`tuner study`: what it shows of studies, how it steers them, the test part, deletion."""

from __future__ import annotations

import contextlib
import os
import pty
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.site import Cli, Done, Site
from tests.storage.rows import claim_beside, claim_one, write_point
from tuner.states import Outcome, StudyState
from tuner.storage import claims, workers
from tuner.storage.claims import Claim, Ending, Progress
from tuner.storage.connection import Database
from tuner.storage.studies import get_study, list_studies
from tuner.storage.workers import Usage


@pytest.fixture
def study(cli: Cli, spec_file: Path, db: Database) -> int:
    """A study that nobody works on."""
    assert cli("launch", spec_file, "--workers", 0).code == 0
    return get_study(db, "tiny").study_id


def claim(db: Database, study: int) -> Claim:
    """A trial, held by a worker that is heard of."""
    worker = uuid4()
    workers.register(db, worker, host="there", pid=1, device="cpu", slots=1, version="1")
    held = claim_one(db, study, worker)
    assert isinstance(held, Claim)
    spec = get_study(db, "tiny").spec
    point = {"layers": 1, "units": 8, "learning_rate": 0.01}
    assert write_point(db, held.held, spec.space, point)
    return held


def test_show_says_what_is_to_be_done_next(cli: Cli, study: int, db: Database) -> None:
    def status() -> str:
        (line,) = [line for line in cli("study", "show", "tiny").out.splitlines() if line.startswith("status")]
        return line.removeprefix("status").strip()

    assert status() == "running, no worker, 0 of 4 trials; next: tuner worker start tiny"
    held = claim(db, study)
    assert status() == "running, 1 worker, 0 of 4 trials; next: tuner study watch tiny"
    claims.tell(db, held.held, Ending(outcome=Outcome.COMPLETE, value=0.5), Progress(curve={1: 0.5}))
    cli("study", "pause", "tiny")
    assert status() == "paused, 1 worker, 1 of 4 trials; next: tuner study resume tiny"  # it waits
    cli("study", "cancel", "tiny")
    assert status() == "cancelled, 1 of 4 trials; next: tuner study resume tiny"


def test_the_end_is_expected_once_an_epoch_was_measured(cli: Cli, study: int, db: Database) -> None:
    held = claim(db, study)
    shown = cli("study", "show", "tiny", "--format", "json").json
    assert (shown["remaining_seconds"], shown["expected_end"]) == (None, None)
    assert "expected end" not in cli("study", "show", "tiny").out
    claims.report(db, held.held, Progress(curve={1: 0.5}))
    shown = cli("study", "show", "tiny", "--format", "json").json
    assert shown["remaining_seconds"] > 0
    assert datetime.fromisoformat(shown["expected_end"]) > datetime.now(UTC)
    assert "expected end in " in cli("study", "show", "tiny").out


def test_what_workers_make_of_their_machines_is_shown(cli: Cli, study: int, db: Database) -> None:
    held = claim(db, study)
    (worker,) = workers.list_workers(db)
    usage = Usage(busy_cores=0.97, cores=2, memory_bytes=300 * 2**20, available_bytes=2 * 2**30)
    workers.set_usage(db, worker.worker_id, usage)
    assert "there:1  1/1 slots; 1.0/2 cores; 300 MiB, 2.0 GiB free" in cli("study", "show", "tiny").out
    (row,) = cli("worker", "list", "--format", "json").json
    assert row["usage"]["busy_cores"] == 0.97
    listed = cli("worker", "list").out
    assert "1.0/2 cores  300 MiB, 2.0 GiB free" in listed
    assert "GPUs" not in listed
    claims.tell(db, held.held, Ending(outcome=Outcome.CRASHED))
    cli("study", "pause", "tiny")
    assert "1 slot waits: the study is paused" in cli("study", "show", "tiny").out


def test_show_sums_up_how_trials_ended(cli: Cli, study: int, db: Database) -> None:
    for outcome in (Outcome.COMPLETE, Outcome.DIVERGED, Outcome.CRASHED):
        value = 0.5 if outcome is Outcome.COMPLETE else None
        claims.tell(db, claim(db, study).held, Ending(outcome=outcome, value=value, attributes={"best_epoch": 1}))
    claim(db, study)
    assert "3: 1 complete, 1 pruned, 1 failed (1 diverged, 1 crashed)" in cli("study", "show", "tiny").out
    shown = cli("study", "show", "tiny", "--format", "json").json
    assert shown["outcomes"] == {"complete": 1, "diverged": 1, "crashed": 1}
    assert (shown["running"], shown["workers"]) == (1, 4)  # three of them wait
    assert shown["best"]["number"] == 0


def test_numbers_that_were_skipped_are_not_told_as_begun(cli: Cli, study: int, db: Database) -> None:
    first = claim(db, study).held
    (worker,) = workers.list_workers(db)
    claim_beside(db, first, worker.worker_id, [3])
    shown = cli("study", "show", "tiny", "--format", "json").json
    assert (shown["spent"]["trials"], shown["running"]) == (2, 2)
    (row,) = cli("study", "list", "--format", "json").json
    assert (row["trials"], row["running"], row["waiting"]) == (2, 2, 0)
    claims.report(db, first, Progress(curve={1: 0.5}))
    cli("study", "stop", "tiny")
    db.execute("UPDATE tuner.lease SET seconds = 3600 WHERE number = 0")  # an epoch of a trial
    # Three epochs each, in one slot: those that wait are not begun any more.
    remaining = cli("study", "show", "tiny", "--format", "json").json["remaining_seconds"]
    assert remaining == pytest.approx(5 * 3600, rel=0.01)
    assert cli("study", "set", "tiny", "--trials", 1).code == 2
    assert cli("study", "set", "tiny", "--trials", 2).code == 0


def test_a_finished_study(look: Cli) -> None:
    shown = look("study", "show", "tiny").out
    assert "finished, 4 of 4 trials; next: tuner trial export tiny best --to tiny-best" in shown
    (row,) = look("study", "list", "--format", "json").json
    assert (row["study"], row["state"], row["trials"], row["complete"], row["workers"]) == ("tiny", "finished", 4, 4, 0)
    best = look("study", "best", "tiny", "--format", "json").json
    assert (best["number"], best["value"]) == (row["best_trial"], row["best"])
    assert set(best["params"]) == {"layers", "units", "learning_rate"}


def test_watch_prints_every_trial_and_ends_with_the_study(look: Cli) -> None:
    done = look("study", "watch", "tiny")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line[:5] for line in lines[:5]] == ["trial", "trial", "trial", "trial", "study"]


def test_watch_on_a_terminal_draws_in_place(trained: tuple[Site, Done]) -> None:
    ours, theirs = pty.openpty()
    process = trained[0].start("study", "watch", "tiny", stdout=theirs)
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # a terminal's end of file
        while chunk := os.read(ours, 65_536):
            output += chunk
    os.close(ours)
    _, err = process.communicate()
    assert process.returncode == 0, err
    drawn, clear, closing = output.decode().rpartition("\x1b[2K")
    assert clear  # the view was removed again
    assert "4 of 4 trials" in drawn
    assert "best accuracy" in drawn
    assert closing.strip().startswith("study     tiny, finished")


def test_states_follow_what_is_asked(cli: Cli, study: int, db: Database) -> None:
    for command, state in (
        ("pause", StudyState.PAUSED),
        ("resume", StudyState.RUNNING),
        ("cancel", StudyState.CANCELLED),
        ("resume", StudyState.RUNNING),
        ("stop", StudyState.FINISHED),
        ("resume", StudyState.RUNNING),
    ):
        done = cli("study", command, "tiny")
        assert done.code == 0
        assert f"study tiny: {state}" in done.err
        assert get_study(db, "tiny").state is state


def test_orders_say_what_they_did_and_what_is_next(cli: Cli, study: int, db: Database) -> None:
    assert (
        "finished; no trial runs, and none will begin; next: tuner study resume tiny"
        in cli("study", "stop", "tiny").err
    )
    assert "next: tuner study resume tiny" in cli("study", "show", "tiny").out
    assert "running; workers may take trials; next: tuner worker start tiny" in cli("study", "resume", "tiny").err
    claim(db, study)
    stopping = cli("study", "stop", "tiny").err
    assert "stopping; trials that run train to their end, no others begin; next: tuner study watch tiny" in stopping


def test_the_list_fits_a_terminal(cli: Cli, spec_file: Path, db: Database) -> None:
    cli("launch", spec_file, "--workers", 0, "--name", "digits-cnn.random.0")
    heading, row = cli("study", "list").out.splitlines()
    assert max(len(heading), len(row)) <= 80


def test_what_cannot_be_done_is_refused(look: Cli) -> None:
    assert look("study", "pause", "tiny").code == 2
    done = look("study", "resume", "tiny")
    assert (done.code, len(done.err.splitlines())) == (2, 1)


def test_set_changes_the_budget(cli: Cli, study: int, db: Database) -> None:
    assert cli("study", "set", "tiny", "--trials", 9, "--seconds", 60).code == 0
    budget = get_study(db, "tiny").budget
    assert (budget.trials, budget.total_epochs, budget.seconds) == (9, None, 60.0)
    assert cli("study", "set", "tiny").code == 2
    assert cli("study", "set", "tiny", "--trials", 0).code == 2
    assert get_study(db, "tiny").budget == budget


@pytest.mark.parametrize(
    "option",
    [
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--seconds", 0),
        ("--total-epochs", 10**23),
        ("--total-epochs", 0),
        ("--trials", 10**6 + 1),
    ],
)
@pytest.mark.parametrize("budget", ["{trials: 4}", "{seconds: 60}"])
def test_a_budget_that_cannot_be_is_refused(
    cli: Cli, spec_file: Path, db: Database, budget: str, option: tuple[object, ...]
) -> None:
    spec_file.write_text(spec_file.read_text().replace("{trials: 4}", budget))
    cli("launch", spec_file, "--workers", 0)
    before = get_study(db, "tiny")
    done = cli("study", "set", "tiny", *option)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(f"tuner: {option[0]}: ")
    assert get_study(db, "tiny") == before


def test_a_grid_gets_no_more_trials_than_it_has_points(cli: Cli, spec_file: Path, db: Database) -> None:
    cli("launch", spec_file, "--workers", 0, "--set", "search.method=grid")
    done = cli("study", "set", "tiny", "--trials", 13)
    assert done.code == 2
    assert "12 points" in done.err
    assert cli("study", "set", "tiny", "--trials", 12).code == 0


def test_delete_asks_first_and_takes_the_files_too(cli: Cli, here: Site, study: int, db: Database) -> None:
    folder = here.artifacts / get_study(db, "tiny").folder
    (folder / "7").mkdir(parents=True)
    dry = cli("study", "delete", "tiny", "--dry-run")
    assert dry.code == 0
    assert str(folder) in dry.out
    refused = cli("study", "delete", "tiny")  # nobody there to ask
    assert refused.code == 2
    assert "--yes" in refused.err
    assert list_studies(db)
    assert folder.exists()
    assert cli("study", "delete", "tiny", "--yes").code == 0
    assert list_studies(db) == []
    assert not folder.exists()


def test_the_test_part_is_opened_once(look: Cli, trained: tuple[Site, Done]) -> None:
    first = look("study", "evaluate", "tiny", "--format", "json")
    assert first.code == 0, first.err
    best = look("study", "best", "tiny", "--format", "json").json
    assert first.json["trial"] == best["number"]
    assert first.json["validation"] == {"accuracy": best["value"]}
    assert set(first.json["test"]) == {"accuracy", "loss"}
    assert look("study", "evaluate", "tiny", "--format", "json").json == first.json
    with Database(trained[0].url) as db:
        assert len(db.execute("SELECT FROM tuner.evaluation")) == 1
    (opening,) = look("study", "show", "tiny", "--format", "json").json["test_part_opened"]
    assert opening["scores"] == first.json["test"]


def test_the_test_part_stays_closed_while_the_search_goes_on(cli: Cli, study: int, db: Database) -> None:
    claims.tell(db, claim(db, study).held, Ending(outcome=Outcome.COMPLETE, value=0.5))
    done = cli("study", "evaluate", "tiny")
    assert done.code == 2
    assert "tuner study stop tiny" in done.err


@pytest.mark.parametrize(
    "command", ["show", "watch", "best", "pause", "resume", "stop", "cancel", "evaluate", "delete"]
)
def test_an_unknown_study_is_one_line(look: Cli, command: str) -> None:
    done = look("study", command, "tinny")
    assert done.code == 3
    assert done.err == "tuner: no study 'tinny'; did you mean 'tiny'?\n"
    assert done.out == ""


def test_commands_to_paste_name_the_database(
    look: Cli, trained: tuple[Site, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNER_DATABASE_URL")
    url = trained[0].url
    assert f"'{url}'" in look("--database", url, "study", "best", "tiny").out
