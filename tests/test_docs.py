"""The documentation says what the code does: keys and defaults, study files, command lines, links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import click
import pytest
from pydantic.fields import FieldInfo

from tuner.cli.main import tuner
from tuner.spec import config, search
from tuner.spec.config import Fixed, PerLayer, Record, TrialConfig
from tuner.spec.faults import flow
from tuner.spec.knobs import value_type
from tuner.spec.study import read_spec
from tuner.spec.study_file import StudyFile

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "study_files.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# The plain records behind the sections whose models are derived from them.
SECTIONS: Mapping[str, Any] = {
    name: TrialConfig.model_fields.get(name, field).annotation
    for name, field in StudyFile.model_fields.items()
    if name != "study"
}
SEARCHABLE = ("model", "training")
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
NAMES = r"[\w-]+(?:\s*\|\s*[\w-]+)*"  # `list`, `list | show`, `start|stop`

Key = tuple[str, str]  # of a table: the record's name where there are several ("cnn"), and the key
Row = dict[str, str]  # by the title of a column

# --- what the tables must say ---------------------------------------------------------------------------------------


def records_in(annotation: Any) -> list[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return [record for part in get_args(annotation) for record in records_in(part)]


def tables_of(heading: str, annotation: Any) -> Iterator[tuple[str, list[type[Record]]]]:
    """A section's records by the heading of their table; records inside of it that have a table of their own."""
    records = records_in(annotation)
    yield heading, records
    for record in records:
        for name, field in record.model_fields.items():
            inner = f"{heading}.{name}"
            if len(records_in(field.annotation)) > 1 and len(records) == 1:
                yield from tables_of(inner, field.annotation)


TABLES = {heading: found for section, kind in SECTIONS.items() for heading, found in tables_of(section, kind)}


def discriminator(record: type[Record]) -> str | None:
    """The key with a single possible value, which tells the records of a section apart."""
    singles = (name for name, field in record.model_fields.items() if len(get_args(field.annotation)) == 1)
    return next((name for name in singles if get_origin(record.model_fields[name].annotation) is Literal), None)


def expected_rows(section: str, record: type[Record]) -> Iterator[tuple[Key, Row]]:
    mark = discriminator(record)
    name = record.model_fields[mark].default if mark else ""
    for path, field, default in leaves(record, record()):
        if path != mark:
            row = {"type": type_text(field), "default": f"`{flow(default)}`"}
            yield (name, path), row | ({"searched": searched_text(field)} if section in SEARCHABLE else {})


def leaves(record: type[Record], defaults: Record) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every key with its default; a record inside gives dotted keys, with the defaults that it has there."""
    for name, field in record.model_fields.items():
        inner, default = records_in(field.annotation), getattr(defaults, name)
        if len(inner) == 1:
            yield from ((f"{name}.{path}", leaf, value) for path, leaf, value in leaves(inner[0], default))
        else:
            mark = discriminator(type(default)) if inner else None
            yield name, field, getattr(default, mark) if mark else default


def type_text(field: FieldInfo) -> str:
    """`integer 1 to 16`, `number > 0`."""
    if records_in(field.annotation):
        return "a pruner"
    kind, *constraints = unwrapped(value_type(field))
    bounds = {
        name: f"{getattr(item, name):.10g}"
        for item in constraints
        for name in BOUNDS
        if getattr(item, name, None) is not None
    }
    if bounds.keys() == {"ge", "le"}:
        return f"{kind_text(kind)} {bounds['ge']} to {bounds['le']}"
    return f"{kind_text(kind)} {', '.join(f'{BOUNDS[name]} {bound}' for name, bound in bounds.items())}".strip()


def unwrapped(annotation: Any) -> list[Any]:
    """The type inside of Annotated and of `| None`, then its constraints."""
    if get_origin(annotation) is Annotated:
        inner, *constraints = get_args(annotation)
        return [*unwrapped(inner), *flat(constraints)]
    given = [part for part in get_args(annotation) if part is not NoneType]
    return unwrapped(given[0]) if NoneType in get_args(annotation) else [annotation]


def flat(constraints: list[Any]) -> Iterator[Any]:
    for item in constraints:
        yield from item.metadata if isinstance(item, FieldInfo) else [item]


def kind_text(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {kind_text(get_args(kind)[0])}"
    return {int: "integer", float: "number", bool: "`true`, `false`"}[kind]


def searched_text(field: FieldInfo) -> str:
    if any(isinstance(item, Fixed) for item in field.metadata):
        return "no"
    return "yes, `each`" if any(isinstance(item, PerLayer) for item in field.metadata) else "yes"


# --- what the pages say ---------------------------------------------------------------------------------------------


def documented(heading: str) -> tuple[set[str], dict[Key, Row]]:
    """The names of records and the rows of the table under a heading."""
    found = re.search(rf"^#+ `{re.escape(heading)}`\n(.*?)(?=^#|\Z)", REFERENCE.read_text(), re.M | re.S)
    assert found, f"{REFERENCE.name} has no heading `{heading}`"
    lines = [cells(line) for line in found[1].splitlines() if line.startswith("|")]
    titles, _, *rows = lines
    names: set[str] = set()
    keys: dict[Key, Row] = {}
    name = ""
    for row in rows:
        assert len(row) == len(titles), f"{heading}: {row}"
        values = dict(zip(titles, row, strict=True))
        if titles[0] != "key":
            name = row[0].strip("`") or name
            names.add(name)
        if key := values["key"].strip("`"):
            assert (name, key) not in keys, f"{heading}: {name} {key} stands there twice"
            assert values["meaning"], f"{heading}: {name} {key} has no meaning"
            keys[name, key] = values
    return names, keys


def cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def code_blocks(page: Path, language: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def command_lines(page: Path) -> list[str]:
    """Lines of code blocks, and code within text, that begin with the command's name."""
    text = page.read_text()
    lines = [line for block in code_blocks(page) for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]
    found = (re.match(r"(?:\$ )?(?:\w+=\S* )*(tuner\s[^#]+)", line.strip()) for line in lines)
    return [match[1].strip() for match in found if match]


# --- tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", TABLES)
def test_the_reference_has_every_key_with_its_type_and_default(heading: str) -> None:
    expected = {key: row for record in TABLES[heading] for key, row in expected_rows(heading, record)}
    names, rows = documented(heading)
    said = {key: {title: row[title] for title in expected.get(key, row)} for key, row in rows.items()}
    assert said == expected
    assert names == {record.model_fields[mark].default for record in TABLES[heading] if (mark := discriminator(record))}


def test_every_record_of_a_study_file_is_in_a_table() -> None:
    shown = {record for records in TABLES.values() for record in records}
    shown |= {
        inner for record in shown for field in record.model_fields.values() for inner in records_in(field.annotation)
    }
    declared = {
        item
        for module in (config, search)
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Record) and item.__module__ == module.__name__
    }
    assert shown == declared - {Record, TrialConfig}


@pytest.mark.parametrize("page", [ROOT / "README.md", REFERENCE], ids=lambda page: page.name)
def test_study_files_that_are_shown_load(page: Path, tmp_path: Path) -> None:
    files = [block for block in code_blocks(page, "yaml") if re.search(r"^study:", block, re.M)]
    assert files
    for text in files:
        file = tmp_path / "shown.yaml"
        file.write_text(text)
        read_spec(file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    for line in command_lines(page):
        check_command(line)


@pytest.mark.parametrize(
    "line",
    ["tuner lunch FILE", "tuner launch --wrokers 2", "tuner study lst x", "tuner db | dta", "tuner --data x db start"],
)
def test_commands_that_do_not_exist_are_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check_command(line)


def test_relative_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if not re.match(r"[a-z]+:|#", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def check_command(line: str) -> None:
    """That the command exists, and every option in its line.

    Besides what a shell takes: alternatives (`tuner study list | show`, `tuner db start|stop`), and words that say what
    the command does, as they stand behind commands in a README.
    """
    command: click.Command = tuner
    rest = line.partition(" ")[2].strip()
    while isinstance(command, click.Group):
        rest = behind_options(command, rest, line)
        named = re.match(NAMES, rest)
        if not named:
            assert not rest, f"{line!r}: {rest} is no command"
            return
        names = re.split(r"\s*\|\s*", named[0])
        unknown = [name for name in names if name not in command.commands]
        assert not unknown, f"{line!r}: {command.name} has no command {', '.join(unknown)}"
        if len(names) > 1:
            return
        command, rest = command.commands[names[0]], rest[named.end() :].strip()
    behind_options(command, re.split(r"\s(?:\||&&|>)\s", rest)[0], line, interspersed=True)


def behind_options(command: click.Command, text: str, line: str, *, interspersed: bool = False) -> str:
    """The text behind a command's options, each of which must exist."""
    parameters = command.get_params(click.Context(command))
    options = {name: option for option in parameters for name in (*option.opts, *option.secondary_opts)}
    words = text.split()
    while words and (interspersed or words[0].startswith("-")):
        name, equals, _ = words.pop(0).partition("=")
        if not re.fullmatch(r"-\w|--\w[\w-]*", name):
            continue
        assert name in options, f"{line!r}: {command.name} has no option {name}"
        option = options[name]
        if words and not equals and not (isinstance(option, click.Option) and (option.is_flag or option.count)):
            words.pop(0)
    return " ".join(words)
