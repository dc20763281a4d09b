from __future__ import annotations

import psycopg2.extensions
import pytest
import sqlalchemy

from tuner.errors import InvalidInput
from tuner.storage.url import normalise, parse, refuse_password

CANARY = "c4n4ry-s3cr3t"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://ann@db/lab", "postgresql+psycopg2://ann@db/lab"),
        ("postgresql://ann@db:5433/lab", "postgresql+psycopg2://ann@db:5433/lab"),
        ("postgresql+psycopg2://db/lab", "postgresql+psycopg2://db/lab"),
        ("POSTGRESQL://db/lab", "postgresql+psycopg2://db/lab"),
        ("postgresql://[::1]:5433/lab", "postgresql+psycopg2://[::1]:5433/lab"),
        ("postgresql://ann@/lab?host=/run/pg", "postgresql+psycopg2://ann@/lab?host=/run/pg"),
        ("postgresql://%2Frun%2Fpg/lab", "postgresql+psycopg2:///lab?host=/run/pg"),
        ("postgresql://h1:1,h2:2/lab", "postgresql+psycopg2:///lab?host=h1%3A1&host=h2%3A2"),
        ("postgresql:///lab?host=h1,h2&port=1,2", "postgresql+psycopg2:///lab?host=h1%3A1&host=h2%3A2"),
        ("postgresql:///?service=lab", "postgresql+psycopg2:///?service=lab"),
        ("postgresql://db/lab?sslmode=verify-full", "postgresql+psycopg2://db/lab?sslmode=verify-full"),
    ],
)
def test_every_usual_spelling_becomes_one_that_sqlalchemy_takes(url: str, expected: str) -> None:
    assert normalise(url) == expected
    assert normalise(expected) == expected
    sqlalchemy.create_engine(expected)


@pytest.mark.parametrize("password", ["plain", "with@at", "with:colon", "with/slash", "with#hash", "per%25cent", "ü"])
def test_a_password_reaches_the_server_whole_and_no_message(password: str) -> None:
    address = parse(f"postgresql://ann:{password}@db:5433/lab")
    again = parse(address.url)
    expected = password.replace("%25", "%")
    assert address.connect_arguments("t")["password"] == again.connect_arguments("t")["password"] == expected
    assert (again.hosts, again.ports, again.user, again.database) == (("db",), ("5433",), "ann", "lab")
    for text in (repr(address), address.hidden, address.place, address.without_secrets):
        assert expected not in text
    engine = sqlalchemy.create_engine(address.url)
    assert engine.dialect.create_connect_args(engine.url)[1]["password"] == expected


def test_hosts_and_ports_as_libpq_reads_them() -> None:
    arguments = parse("postgresql://ann@h1:1,h2/lab?target_session_attrs=read-write").connect_arguments("tuner")
    dsn = psycopg2.extensions.parse_dsn(psycopg2.extensions.make_dsn(**arguments))
    assert (dsn["host"], dsn["port"], dsn["target_session_attrs"]) == ("h1,h2", "1,", "read-write")


def test_the_url_wins_over_our_timeouts_and_keeps_its_options() -> None:
    arguments = parse("postgresql://db/lab?connect_timeout=3&options=-c%20jit%3Doff").connect_arguments("tuner")
    assert arguments["connect_timeout"] == "3"
    assert str(arguments["options"]).startswith("-c jit=off -c search_path=public")


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://ann:{}@db/lab", "postgresql+asyncpg://ann:{}@db/lab"])
def test_other_databases_are_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not supported") as caught:
        normalise(url.format(CANARY))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("url", ["", "db.example", f"ann:{CANARY}@db/lab", f"postgresql:/ann:{CANARY}@db"])
def test_what_is_no_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidInput, match="not a database URL") as caught:
        normalise(url)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db:{}/lab",
        "postgresql://[::1]:{}/lab",
        "postgresql://h1:1,h2:{}/lab",
        "postgresql:///lab?host=db&port={}",
        "postgresql://ann:{}?x@db/lab",  # a password with a "?": what stands before it looks like a port
    ],
)
def test_a_port_that_is_no_number_is_said_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidInput, match="port in the database URL is not a number") as caught:
        parse(url.format(CANARY))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{CANARY}@db/lab",
        f"postgresql:///lab?host=db&password={CANARY}",
        f"postgresql://db/lab?sslpassword={CANARY}",
    ],
)
def test_a_password_on_the_command_line_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="PGPASSWORD") as caught:
        refuse_password(url)
    assert CANARY not in str(caught.value)
    refuse_password("postgresql://ann@db/lab")
