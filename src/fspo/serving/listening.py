"""An application listens on an address, until a signal ends it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import LOGGING_CONFIG

from fspo.errors import ConfigError
from fspo.serving.counters import ACCESS_LOG
from fspo.serving.logged_errors import hide_values

__all__ = ["bound", "listen"]

_BACKLOG = 2048
_CONNECTIONS = 4096
"""Open at once; further ones are answered with status 503 and closed."""
_OTHER_FILES = 256
"""Files that the process has open beside connections."""
_GRACE = 20
"""Seconds for answers under way, after the signal."""


def bound(host: str, port: int) -> socket.socket:
    """Take a port for `listen` (0: a free one), before anything is loaded or stored; the caller closes it.

    Raises:
        ConfigError: nothing can listen there.
    """
    place = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            place.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        place.bind((host, port))
    except OSError as error:
        place.close()
        raise _refusal(host, port, error) from error
    return place


def listen(
    app: Starlette,
    place: socket.socket,
    announce: Callable[[str], None],
    *,
    path: str = "/v1",
    access_log: bool = False,
) -> None:
    """Serve the application until SIGINT or SIGTERM, which let the requests under way finish.

    The place is that of `bound`. `announce` is called with the address, such as http://127.0.0.1:8000/v1, which ends in
    `path`, once connections are taken. With `access_log` the application's access log goes to stderr.

    Raises:
        ConfigError: another program listens there since `bound`.
    """
    settings = uvicorn.Config(
        app,
        log_config=_log_config(access_log),
        log_level="warning",
        access_log=False,  # uvicorn's own, with addresses and queries of people
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=_allow_connections(),
    )
    hide_values()
    server = uvicorn.Server(settings)
    with _ended_by_signals(server):
        host, port, *_ = place.getsockname()
        try:
            place.listen(_BACKLOG)
        except OSError as error:
            raise _refusal(host, port, error) from error
        name = f"[{host}]" if ":" in host else host
        announce(f"http://{name}:{port}{path}")
        with suppress(KeyboardInterrupt):
            server.run(sockets=[place])


def _log_config(access_log: bool) -> dict[str, Any]:
    """Uvicorn's settings of the standard library's logging, and those of the access log."""
    config = deepcopy(LOGGING_CONFIG)
    config["formatters"]["requests"] = {"format": "%(asctime)s %(message)s"}
    config["handlers"]["requests"] = config["handlers"]["default"] | {"formatter": "requests"}
    # Without it the level keeps the lines from the handlers of other loggers too.
    wanted = {"handlers": ["requests"], "level": "INFO"} if access_log else {"handlers": [], "level": "WARNING"}
    config["loggers"][ACCESS_LOG] = wanted
    return config


def _allow_connections() -> int:
    """How many connections may be open; the limit of files that this process may open is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return _CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(_CONNECTIONS, soft - _OTHER_FILES))


def _refusal(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"Another program listens on port {port} of {host}; choose another --port, or 0 for any.")
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return ConfigError(f"The server can't listen on port {port} of {host} ({reason}); choose another --port or --host.")


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
