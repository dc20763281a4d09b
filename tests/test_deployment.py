"""The container files, as far as they can be checked without a Docker engine."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
TUNER_SERVICES = ("worker", "worker-gpu", "dashboard")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return document


@pytest.fixture(scope="module")
def dockerfile() -> list[list[str]]:
    """Its instructions, continuation lines joined: [["FROM", "python:3.12-slim"], …]."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_compose_file_follows_the_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_compose_file_is_accepted_by_docker_compose() -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    result = subprocess.run(
        ["docker-compose", "--file", str(COMPOSE), "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_only_the_dashboard_is_published_and_only_on_this_machine(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"dashboard": ["127.0.0.1:8080:8080"]}
    assert all("network_mode" not in service for service in compose["services"].values())
    assert compose["services"]["postgres"]["networks"] == ["database"]
    assert compose["networks"]["database"]["internal"] is True


def test_no_password_stands_in_the_file_or_an_environment(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for variable, value in service["environment"].items():
            assert "PASSWORD" not in variable or variable == "POSTGRES_PASSWORD_FILE", variable
            assert "postgresql://tuner@" in value or "://" not in value  # a URL without a password
        assert service["secrets"] == ["postgres_password"]
    assert list(compose["secrets"]["postgres_password"]) == ["file"]
    assert "POSTGRES_HOST_AUTH_METHOD" not in COMPOSE.read_text()


def test_services_are_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] not in ("", "0", "root"), name
        assert not service.get("privileged"), name
        assert not any("docker.sock" in str(volume) for volume in service["volumes"]), name


def test_services_wait_for_a_healthy_database(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert "healthcheck" in services["postgres"]
    assert "healthcheck" in services["dashboard"]
    for name in TUNER_SERVICES:
        assert services[name]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_gpus_are_reserved_by_a_profile_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name, service in services.items() if "profiles" in service] == ["worker-gpu"]
    [device] = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert services["worker-gpu"]["image"] != services["worker"]["image"]


def test_workers_share_artifacts_and_have_time_to_checkpoint(compose: dict[str, Any]) -> None:
    for name in TUNER_SERVICES:
        assert "artifacts:/var/lib/tuner-artifacts" in compose["services"][name]["volumes"]
    for name in ("worker", "worker-gpu"):
        assert compose["services"][name]["stop_grace_period"] == "30s"


def test_a_worker_that_is_done_stays_down(compose: dict[str, Any]) -> None:
    restart = {name: service["restart"] for name, service in compose["services"].items()}
    always, when_it_failed = "unless-stopped", "on-failure"
    assert restart == {
        "postgres": always,
        "dashboard": always,
        "worker": when_it_failed,
        "worker-gpu": when_it_failed,
    }


def test_commands_of_the_containers_exist(compose: dict[str, Any]) -> None:
    """They are what the installed command line understands: asked with --help added."""
    for name in TUNER_SERVICES:
        command = compose["services"][name]["command"].replace("${STUDY:-}", "some-study").split()
        result = subprocess.run(
            [sys.executable, "-m", "tuner", *command, "--help"], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr


def test_the_password_reaches_libpq_in_a_private_file(compose: dict[str, Any], tmp_path: Path) -> None:
    """Runs the containers' start script, with its two paths led into a temporary folder."""
    shell, flags, script, name = compose["services"]["worker"]["entrypoint"]
    secret = tmp_path / "secret"
    secret.write_text("it:is\\secret\n")
    passfile = tmp_path / "pgpass"
    stub = tmp_path / "tuner"
    stub.write_text('#!/bin/sh\necho "$# $*"\n')
    stub.chmod(0o755)
    script = script.replace("$$", "$").replace("/run/secrets/postgres_password", str(secret))
    result = subprocess.run(
        [shell, flags, script, name, "worker", "start"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PGPASSFILE": str(passfile)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "2 worker start\n"
    assert passfile.read_text() == "*:*:*:tuner:it\\:is\\\\secret\n"
    assert stat.S_IMODE(passfile.stat().st_mode) == 0o600  # libpq ignores a file that others can read


def test_image_runs_as_an_ordinary_user(dockerfile: list[list[str]]) -> None:
    assert [argument for instruction, argument in dockerfile if instruction == "USER"] == ["tuner"]
    order = [instruction for instruction, _ in dockerfile]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_image_user_is_the_one_that_compose_runs_as(compose: dict[str, Any], dockerfile: list[list[str]]) -> None:
    user = compose["services"]["worker"]["user"].split(":")[0]
    assert any(f"useradd --uid {user} " in argument for _, argument in dockerfile)


def test_image_copies_what_exists_and_the_context_lets_through(dockerfile: list[list[str]]) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for instruction, argument in dockerfile:
        if instruction == "COPY":
            for source in argument.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert Path(source).parts[0] in allowed, source
