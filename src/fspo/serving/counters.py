"""Counters of the server for Prometheus, and its access log; neither names a user, nor holds what one sends."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import MutableHeaders

__all__ = ["ACCESS_LOG", "REQUEST_ID", "ObservingMiddleware", "ServerCounters"]

ACCESS_LOG = "fspo.access"
"""The logger that gets a line on every request, at the level INFO."""
REQUEST_ID = "x-request-id"
"""The header of a response that has the id of its request, as in the log."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other word of a client is not logged."""
_LOG = logging.getLogger(ACCESS_LOG)
_NO_ANSWER = 499
"""Status of a request whose client left before the answer."""


class ServerCounters:
    """What `/metrics` shows of one server."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = CollectorRegistry()
        self.requests = Counter("fspo_requests", "Finished requests.", ["route", "status"], registry=self.registry)
        self.under_way = Gauge("fspo_requests_under_way", "Requests under way.", registry=self.registry)
        self.seconds = Histogram("fspo_request_seconds", "Duration of requests.", ["route"], registry=self.registry)
        self.first_text = Histogram(
            "fspo_first_text_seconds", "Time to the first text of an answer.", ["model"], registry=self.registry
        )
        self.tokens = Counter("fspo_tokens", "Tokens of answered requests.", ["model", "kind"], registry=self.registry)
        self.cancelled = Counter("fspo_cancelled", "Answers whose client left.", ["model"], registry=self.registry)
        self.failed = Counter("fspo_failed", "Answers that an error ended.", ["model"], registry=self.registry)

    def text(self) -> bytes:
        """The counters in Prometheus' text format."""
        return generate_latest(self.registry)


class ObservingMiddleware:
    """Counts and logs the requests of an ASGI application by the pattern of their route, and gives each an id."""

    def __init__(self, app: Any, counters: ServerCounters) -> None:
        """Observe what `app` answers."""
        self._app, self._counters = app, counters

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start, name = _NO_ANSWER, time.perf_counter(), secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = name

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = name
            await send(message)

        self._counters.under_way.inc()
        try:
            await self._app(scope, receive, noting)
        except Exception:
            if status == _NO_ANSWER:
                status = 500  # the server around this one answers so
            raise
        finally:
            route, seconds = getattr(scope.get("route"), "path", "unknown"), time.perf_counter() - start
            self._counters.under_way.dec()
            self._counters.requests.labels(route, str(status)).inc()
            self._counters.seconds.labels(route).observe(seconds)
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            _LOG.info("%s %s %d %.0f ms %s", method, route, status, 1000 * seconds, name)
