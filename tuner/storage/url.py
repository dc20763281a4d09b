"""Addresses of databases: read from a URL, given to psycopg2 and SQLAlchemy, shown without their password.

libpq's own ways to keep a password out of a URL go on working: PGPASSWORD, a passfile, `service=`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, unquote, urlencode

from tuner.errors import InvalidInput

CONNECT_SECONDS = 10
# A connection into nothing is noticed within a third of a lease, so that it is renewed over another one in time.
KEEPALIVE_IDLE_SECONDS = 4
KEEPALIVE_INTERVAL_SECONDS = 2
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_MILLISECONDS = 10_000  # what was sent and not acknowledged for so long breaks the connection

DRIVER = "postgresql+psycopg2"
SCHEMES = ("postgres", "postgresql", DRIVER)
SECRETS = ("password", "sslpassword")
CREDENTIALS = ("PGPASSWORD", "TUNER_DATABASE_URL")  # variables that may hold one: what runs users' code has none

# Optuna's tables stand in `public` also for a user called tuner, whose "$user" would be our own schema.
# A laptop that is closed in the middle of a command must not hold a study's lock for the night.
SESSION = (
    r"-c search_path=public -c timezone=UTC -c default_transaction_isolation=read\ committed "
    "-c idle_in_transaction_session_timeout=15s"
)

# The user part is greedy: an "@" that somebody forgot to write as %40 belongs to the password, never to the host.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z0-9+.-]+)://(?:(?P<user>[^:/?]*)(?::(?P<password>[^?]*))?@)?"
    r"(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a database is and who asks; `repr` and `hidden` never hold the password."""

    user: str | None
    password: str | None = field(repr=False)
    hosts: tuple[str, ...]  # names, addresses or folders of unix sockets; empty: libpq's default
    ports: tuple[str, ...]  # one for each host, "" for the default
    database: str | None
    options: dict[str, str] = field(repr=False)  # any other parameter of libpq: sslmode, service, passfile

    @property
    def url(self) -> str:
        """As SQLAlchemy reads it: the driver named, several hosts and sockets as `host=`."""
        return self._url(self.password, self.options)

    @property
    def hidden(self) -> str:
        """The URL for people's eyes."""
        options = {key: "***" if key in SECRETS else value for key, value in self.options.items()}
        return self._url("***" if self.password is not None else None, options)

    @property
    def without_secrets(self) -> str:
        """The URL for other programs, which find the password where libpq looks for it."""
        return self._url(None, {key: value for key, value in self.options.items() if key not in SECRETS})

    @property
    def place(self) -> str:
        """For messages: "db.example:5432", "/run/postgresql", "service lab"."""
        if not self.hosts:
            return f"service {self.options['service']}" if "service" in self.options else "the default host"
        return ", ".join(
            f"{host}:{port}" if port and not host.startswith("/") else host
            for host, port in zip(self.hosts, self.ports, strict=True)
        )

    def connect_arguments(self, application: str) -> dict[str, str | int]:
        """Keyword arguments of `psycopg2.connect`; what the URL says wins over our timeouts."""
        arguments: dict[str, str | int] = {
            "connect_timeout": CONNECT_SECONDS,
            "keepalives": 1,
            "keepalives_idle": KEEPALIVE_IDLE_SECONDS,
            "keepalives_interval": KEEPALIVE_INTERVAL_SECONDS,
            "keepalives_count": KEEPALIVE_COUNT,
            "tcp_user_timeout": UNACKNOWLEDGED_MILLISECONDS,
            "application_name": application,
            **self.options,
            "options": f"{self.options.get('options', '')} {SESSION}".strip(),
        }
        if self.hosts:
            arguments["host"] = ",".join(self.hosts)
        if any(self.ports):
            arguments["port"] = ",".join(self.ports)
        login = {"user": self.user, "password": self.password, "dbname": self.database}
        return arguments | {key: value for key, value in login.items() if value is not None}

    def _url(self, password: str | None, options: dict[str, str]) -> str:
        login = "" if self.user is None else quote(self.user, safe="")
        login += "" if password is None else ":" + (password if password == "***" else quote(password, safe=""))
        query: list[tuple[str, str]] = []
        authority = ""
        if len(self.hosts) == 1 and not self.hosts[0].startswith("/"):
            host = f"[{self.hosts[0]}]" if ":" in self.hosts[0] else self.hosts[0]
            authority = host + (f":{self.ports[0]}" if self.ports[0] else "")
        elif len(self.hosts) == 1:
            query = [("host", self.hosts[0]), *([("port", self.ports[0])] if self.ports[0] else [])]
        else:
            query = [
                ("host", f"{host}:{port}" if port else host) for host, port in zip(self.hosts, self.ports, strict=True)
            ]
        query += options.items()
        return f"{DRIVER}://{login + '@' if login else ''}{authority}/{quote(self.database or '', safe='')}" + (
            "?" + urlencode(query, safe="/*") if query else ""
        )


def parse(url: str) -> Address:
    """Reads a PostgreSQL URL in any usual spelling.

    Raises InvalidInput, whose message never repeats the URL: it may hold a password.
    """
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise InvalidInput("not a database URL; write it like postgresql://user@host:5432/database")
    scheme = match["scheme"].lower()
    if scheme not in SCHEMES:
        raise InvalidInput(f"{scheme}:// is not supported: tuner keeps studies in PostgreSQL (postgresql://…)")
    options: dict[str, str] = {}
    query_hosts: list[str] = []
    for key, value in parse_qsl(match["query"] or "", keep_blank_values=True):
        if key == "host":
            query_hosts += value.split(",")
        else:
            options[key] = value
    named = query_hosts or [unquote(part) for part in match["hosts"].split(",") if part]
    hosts, ports = _split_ports(named, options.pop("port", ""))
    database = unquote(match["database"]) if match["database"] else options.pop("dbname", None)
    password = unquote(match["password"]) if match["password"] is not None else options.pop("password", None)
    user = unquote(match["user"]) if match["user"] else options.pop("user", None)
    return Address(user=user, password=password, hosts=hosts, ports=ports, database=database, options=options)


def _split_ports(named: list[str], ports: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """("a:1", "b") to (("a", "b"), ("1", "")); `ports` are those given by `port=`, for all hosts or one for each."""
    given = ports.split(",")
    if len(given) == 1:
        given *= max(len(named), 1)
    if len(given) != max(len(named), 1):
        raise InvalidInput(f"the database URL names {len(named)} hosts and {len(given)} ports")
    if not named:
        if ports:
            raise InvalidInput("the database URL names a port and no host")
        return (), ()
    pairs = []
    for name, port in zip(named, given, strict=True):
        match = re.fullmatch(r"\[(?P<v6>[^]]+)](?::(?P<port6>[^:]*))?|(?P<host>[^:]*):(?P<port>[^:]*)", name)
        if name.startswith("/") or match is None:
            pairs.append((name, port))
        else:
            pairs.append((match["v6"] or match["host"], match["port6"] or match["port"] or port))
    if not all(re.fullmatch(r"[0-9]*", port) for _, port in pairs):
        raise InvalidInput("the port in the database URL is not a number")  # perhaps a piece of a password: not shown
    return tuple(host for host, _ in pairs), tuple(port for _, port in pairs)


def normalise(url: str) -> str:
    """The URL as SQLAlchemy 2.1 and psycopg2 take it.

    >>> normalise("postgres://ann@one:5432,two:5433/lab")
    'postgresql+psycopg2://ann@/lab?host=one%3A5432&host=two%3A5433'
    """
    return parse(url).url


def with_password(url: str, environment: Mapping[str, str]) -> str:
    """The URL with the password that libpq would take from the environment, if it has none of its own."""
    address = parse(url)
    return replace(address, password=address.password or environment.get("PGPASSWORD")).url


def refuse_password(url: str) -> None:
    """Raises InvalidInput where a URL given on the command line holds a password: all users could see it."""
    address = parse(url)
    if address.password is not None or any(secret in address.options for secret in SECRETS):
        raise InvalidInput(
            "--database must not hold a password: other users see it in the list of processes; "
            "put it into PGPASSWORD, ~/.pgpass or TUNER_DATABASE_URL"
        )
