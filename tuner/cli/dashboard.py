"""`tuner dashboard`: optuna-dashboard over the studies of the database."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import click

from tuner.cli.context import Context, pass_context
from tuner.errors import InvalidInput

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@click.command("dashboard")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free port.")
@click.option("--allow-remote", is_flag=True, help="Allow a host that other machines reach: there is no login.")
@pass_context
def command(context: Context, host: str, port: int, allow_remote: bool) -> None:
    """Serve all studies to a web browser."""
    family, address, loopback = _resolve(host, port)
    if not loopback and not allow_remote:
        raise InvalidInput(
            f"--host {host} can be reached from other machines and the dashboard has no login: whoever reaches it can "
            "delete studies; add --allow-remote if that is meant, or forward the port with ssh -L"
        )
    with _listen(family, address) as server:
        application = _application(context.database_url())
        server.set_app(_local_only(application) if loopback else application)
        if not loopback:
            click.echo("tuner: warning: no login: whoever reaches this address can delete studies", err=True)
        click.echo(f"dashboard: http://{_url_host(address[0])}:{server.server_port}/dashboard")
        context.note("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):  # the usual way to end a server: success
            server.serve_forever()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread per request: pages ask for several things at once."""

    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> None:
        self.address_family = family
        super().__init__(address, _QuietHandler)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are not worth a line each."""


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...], bool]:
    """Family and address to bind, and whether only this machine reaches it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"--host {host}: no such address; usually 127.0.0.1") from error
    return family, address, ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback


def _listen(family: socket.AddressFamily, address: tuple[Any, ...]) -> _Server:
    try:
        return _Server(family, address)
    except OSError as error:
        host, port = address[:2]
        raise InvalidInput(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port, or --port 0 for any"
        ) from error


def _application(url: str) -> Application:
    import optuna_dashboard

    from tuner.storage.optuna_storage import optuna_storage

    application: Application = optuna_dashboard.wsgi(optuna_storage(url))
    return application


def _local_only(application: Application) -> Application:
    """Refuses requests under a foreign name: a web page can rebind its own name to 127.0.0.1, and delete studies."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if _is_local(environ.get("HTTP_HOST", "")):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"open the dashboard as localhost or 127.0.0.1\n"]

    return guarded


def _is_local(host_header: str) -> bool:
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
