"""An application listens on an address, until a signal ends it."""

from __future__ import annotations

import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn
from starlette.applications import Starlette

from fspo.errors import ConfigError
from fspo.serving.logged_errors import hide_values

__all__ = ["listen"]

_BACKLOG = 2048
_CONNECTIONS = 4096
"""Open at once; further ones are answered with status 503 and closed."""
_OTHER_FILES = 256
"""Files that the process has open beside connections."""
_GRACE = 20
"""Seconds for answers under way, after the signal."""


def listen(app: Starlette, host: str, port: int, announce: Callable[[str], None], *, path: str = "/v1") -> None:
    """Serve the application until SIGINT or SIGTERM, which let the requests under way finish.

    Args:
        app: what answers.
        host: name or address to listen on.
        port: 0 takes a free one.
        announce: is called with the address, such as http://127.0.0.1:8000/v1, once connections are taken.
        path: the end of that address.

    Raises:
        ConfigError: nothing can listen there.
    """
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=_allow_connections(),
    )
    hide_values()
    server = uvicorn.Server(settings)
    with _listening(host, port) as place, _ended_by_signals(server):
        name = f"[{host}]" if ":" in host else host
        announce(f"http://{name}:{place.getsockname()[1]}{path}")
        with suppress(KeyboardInterrupt):
            server.run(sockets=[place])


def _allow_connections() -> int:
    """How many connections may be open; the limit of files that this process may open is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return _CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(_CONNECTIONS, soft - _OTHER_FILES))


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"The server can't listen on port {port} of {host} ({error.strerror or error}); "
            "choose another --port or --host."
        ) from error


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """A signal ends the server, also before it has begun.

    Uvicorn raises the signals again when it has ended; with these handlers they then do nothing, and not kill.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sign: signal.signal(sign, server.handle_exit) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
