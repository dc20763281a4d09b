"""The dashboard as its user meets it: the real command, over a real database, in a real browser."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from tuner.storage.optuna_storage import optuna_storage

CHROMIUM = Path("/usr/bin/chromium")
STUDY = "digits-cnn"


def objective(trial: optuna.Trial) -> float:
    """Twelve trials of four epochs; every fourth is pruned after two."""
    learning_rate = trial.suggest_float("training.learning_rate", 1e-4, 1e-1, log=True)
    trial.suggest_categorical("training.optimizer", ["adamw", "sgd"])
    for epoch in range(1, 5):
        trial.report(1 - learning_rate - 1 / (epoch + 1), epoch)
        if trial.number % 4 == 3 and epoch == 2:
            raise optuna.TrialPruned
    trial.set_user_attr("outcome", "complete")
    return 0.8 - learning_rate


@pytest.fixture
def study_url(database_url: str) -> str:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        study_name=STUDY, direction="maximize", storage=optuna_storage(database_url), sampler=sampler
    )
    study.optimize(objective, n_trials=12)
    return database_url


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TUNER_DATABASE_URL": url},
    )


@contextmanager
def dashboard(url: str, *arguments: str) -> Iterator[str]:
    """Runs the command on a free port; gives the address it prints, and ends it as a user does: Ctrl-C, quietly."""
    process = start(url, "--port", "0", *arguments)
    assert process.stdout
    assert process.stderr
    try:
        match = re.fullmatch(r"dashboard: (http://\S+/dashboard)\n", process.stdout.readline())
        assert match, process.stderr.read()
        yield match[1]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
        assert (process.returncode, rest) == (0, "")
        assert "Traceback" not in errors
        assert '"GET' not in errors
    finally:
        process.kill()
        process.communicate()


def get(address: str, host: str | None = None) -> str:
    headers = {"Host": host} if host else {}
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as response:
        text: str = response.read().decode()
        return text


def test_studies_are_served_on_this_machine_alone(study_url: str) -> None:
    with dashboard(study_url) as address:
        assert address.startswith("http://127.0.0.1:")
        studies = json.loads(get(address.replace("/dashboard", "/api/studies")))["study_summaries"]
        assert [study["study_name"] for study in studies] == [STUDY]
        assert "<html" in get(address, host="localhost:8080").lower()
        with pytest.raises(urllib.error.HTTPError, match="403"):  # a page of evil.example that rebinds its name
            get(address, host="evil.example")


def test_a_port_in_use_is_one_line(study_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(study_url, "--port", str(port))
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert f"127.0.0.1 port {port}" in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_an_explicit_word(host: str) -> None:
    """Refused before the database is even looked at."""
    process = start("postgresql://127.0.0.1:9/none", "--port", "0", "--host", host)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    assert "--allow-remote" in errors
    assert len(errors.splitlines()) == 1


def test_an_unknown_host_is_one_line() -> None:
    process = start("postgresql://127.0.0.1:9/none", "--host", "300.1.1.1")
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1


def test_with_the_word_it_serves_and_warns(study_url: str) -> None:
    process = start(study_url, "--port", "0", "--host", "0.0.0.0", "--allow-remote")
    assert process.stdout
    try:
        address = process.stdout.readline().split()[1].replace("0.0.0.0", "127.0.0.1")
        assert "<html" in get(address, host="tuner.lab").lower()
        process.send_signal(signal.SIGINT)
        assert "no login" in process.communicate(timeout=20)[1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.browser
def test_pages_in_a_browser(study_url: str, tmp_path: Path) -> None:
    """Lists the study, draws its plots and its trials, asks nobody else, and logs no error."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    with dashboard(study_url) as address, sync_api.sync_playwright() as playwright:
        # No sandbox, because it cannot be made by root in a container; the pages are our own.
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        errors: list[str] = []
        foreign: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: foreign.append(request.url))

        page.goto(address)
        page.get_by_text(STUDY).first.wait_for()
        page.screenshot(path=tmp_path / "studies.png")

        page.goto(f"{address}/studies/1")
        page.get_by_text("Intermediate values").first.wait_for()
        page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=tmp_path / "study.png")

        page.goto(f"{address}/studies/1/trials?numbers=3")
        page.get_by_text("Pruned").first.wait_for()
        assert page.get_by_text("training.learning_rate").first.is_visible()
        page.screenshot(path=tmp_path / "trial.png")
        browser.close()

    origin = address.removesuffix("/dashboard")
    assert [url for url in foreign if not url.startswith((origin, "data:", "blob:"))] == []
    assert errors == []
