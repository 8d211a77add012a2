"""What the counters say of requests that end badly."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from fspo.serving.counters import CountingMiddleware, ServerCounters


@pytest.mark.parametrize(("fault", "status"), [(ZeroDivisionError, 500), (None, 204)])
def test_a_request_that_ends_with_an_error_counts_as_500(fault: Any, status: int) -> None:
    def answer(_: Request) -> Response:
        if fault is not None:
            raise fault
        return Response(status_code=204)

    counters = ServerCounters()
    app = Starlette(routes=[Route("/x", answer)])
    app.add_middleware(CountingMiddleware, counters=counters)
    sent = TestClient(app, raise_server_exceptions=False).get("/x")
    assert sent.status_code == status
    lines = [line for line in counters.text().decode().splitlines() if line.startswith("fspo_requests_total{")]
    assert len(lines) == 1 and f'status="{status}"' in lines[0] and lines[0].endswith(" 1.0")
