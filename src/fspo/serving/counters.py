"""Counters of the server for Prometheus; no label names a user."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CountingMiddleware", "ServerCounters"]

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


class CountingMiddleware:
    """Counts the requests of an ASGI application by the pattern of their route."""

    def __init__(self, app: Any, counters: ServerCounters) -> None:
        """Count what `app` answers."""
        self._app, self._counters = app, counters

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = _NO_ANSWER, time.perf_counter()

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._counters.under_way.inc()
        try:
            await self._app(scope, receive, noting)
        except Exception:
            if status == _NO_ANSWER:
                status = 500  # the server around this one answers so
            raise
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._counters.under_way.dec()
            self._counters.requests.labels(route, str(status)).inc()
            self._counters.seconds.labels(route).observe(time.perf_counter() - start)
