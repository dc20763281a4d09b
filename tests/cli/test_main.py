import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import tuner.errors
from tuner.cli.main import COMMANDS, exit_codes, run
from tuner.cli.main import tuner as group
from tuner.errors import InvalidSpec, TunerError


def tuner_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def all_commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from all_commands(child, (*path, name))


def raising(error: BaseException) -> click.Command:
    def callback() -> None:
        raise error

    return click.Command("raising", callback=callback)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["launch", "--help"], ["study", "list", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = ["torch", "optuna", "pydantic", "rich", "sqlalchemy", "psycopg2", "numpy", "matplotlib", "ruamel"]
    script = (
        "import sys; from tuner.cli.main import run; code = run(sys.argv[1:]); "
        f"print([name for name in {heavy} if name in sys.modules], code)"
    )
    result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[] 0"


def test_help_lists_commands_in_order_exit_codes_and_environment() -> None:
    text = tuner_command("--help").stdout
    listed = re.findall(r"^  ([a-z]+) ", text[text.index("Commands:") : text.index("Environment:")], re.MULTILINE)
    assert listed == list(COMMANDS)
    codes = " ".join(text[text.index("Exit codes:") :].split())  # however the lines are broken
    assert codes == "Exit codes: " + " ".join(f"{code} {meaning}" for code, meaning in exit_codes())
    assert "TUNER_DATABASE_URL" in text


def test_every_command_has_help() -> None:
    for path, command in all_commands(group):
        short = command.get_short_help_str()  # as lists of commands show it
        assert short, path
        assert not path or not short.endswith("..."), path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (path, parameter.name)


def test_the_tree_drawn_in_errors_is_the_tree_of_classes() -> None:
    """With the exit codes; a class without a code of its own has its parent's."""
    assert tuner.errors.__doc__
    drawn: dict[str, int | None] = {
        name: int(code) if code else None
        for name, code in re.findall(r"^[ │├└─]+([A-Z]\w+) *(\d*)$", tuner.errors.__doc__, re.MULTILINE)
    }

    def classes(error: type[TunerError]) -> Iterator[type[TunerError]]:
        yield error
        for child in error.__subclasses__():
            yield from classes(child)

    ours = [error for error in classes(TunerError) if error.__module__ == "tuner.errors"]
    assert drawn == {error.__name__: vars(error).get("exit_code") for error in ours}
    assert len({code for code, _ in exit_codes()}) == len(list(exit_codes()))


def test_version() -> None:
    assert tuner_command("--version").stdout == f"tuner {tuner.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["launch"], ["study", "list", "--format", "xml"], ["--nonsense"], ["dashboard", "--port", "x"]],
)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    result = tuner_command(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Usage: tuner" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_fault_is_a_line_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    faults = ["a.yaml:3: model.layers: too low; at least 1", "a.yaml:9: budget: missing; give trials"]
    monkeypatch.setitem(group.commands, "raising", raising(InvalidSpec(faults)))
    assert run(["raising"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [f"tuner: {fault}" for fault in faults]


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(group.commands, "raising", raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        run(["raising"])


def test_interrupted_is_130_and_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(group.commands, "raising", raising(KeyboardInterrupt()))
    assert run(["raising"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_a_password_in_database_is_refused_and_not_repeated() -> None:
    result = tuner_command("--database", "postgresql://ann:hunter2@localhost/lab", "study", "list")
    assert result.returncode == 2
    assert "hunter2" not in result.stdout + result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("by", ["option", "environment"])
def test_an_unreachable_database_is_one_line(by: str) -> None:
    url = "postgresql://127.0.0.1:9/lab"
    if by == "option":
        result = tuner_command("--database", url, "study", "list")
    else:
        result = tuner_command("study", "list", TUNER_DATABASE_URL=url)
    assert result.returncode == 4
    assert result.stderr.startswith("tuner: ")
    assert "127.0.0.1:9" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_closed_pipe_is_quiet() -> None:
    """`tuner schema | head -c 1`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() != 0


def test_schema_is_json_for_editors() -> None:

    schema = json.loads(tuner_command("schema").stdout)
    assert {"data", "model", "training", "objective", "search", "budget"} <= set(schema["properties"])


def test_the_console_script_is_installed(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "tuner"
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.startswith("tuner ")
