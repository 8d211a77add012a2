"""What the counters say of requests that end badly, and that the access log holds nothing of people."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from fspo.serving.api import create_app
from fspo.serving.counters import ACCESS_LOG, REQUEST_ID, ObservingMiddleware, ServerCounters
from fspo.serving.store import Store
from tests.serving.echo import EchoEngine

MARK = "velociraptor"


@pytest.mark.parametrize(("fault", "status"), [(ZeroDivisionError, 500), (None, 204)])
def test_a_request_that_ends_with_an_error_counts_as_500(fault: Any, status: int) -> None:
    def answer(_: Request) -> Response:
        if fault is not None:
            raise fault
        return Response(status_code=204)

    counters = ServerCounters()
    app = Starlette(routes=[Route("/x", answer)])
    app.add_middleware(ObservingMiddleware, counters=counters)
    sent = TestClient(app, raise_server_exceptions=False).get("/x")
    assert sent.status_code == status
    lines = [line for line in counters.text().decode().splitlines() if line.startswith("fspo_requests_total{")]
    assert len(lines) == 1 and f'status="{status}"' in lines[0] and lines[0].endswith(" 1.0")


def test_the_access_log_has_a_line_on_each_request_and_nothing_of_a_person(
    sqlite_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    owner = sqlite_store.add_user(MARK, description=MARK)
    key = sqlite_store.add_key(sqlite_store.user_named(MARK)).key
    app = create_app(sqlite_store, EchoEngine())
    headers = {"authorization": f"Bearer {key}", REQUEST_ID: MARK, "user-agent": MARK, "cookie": f"a={MARK}"}
    texts = {"prompt": MARK, "chosen": f"{MARK}!", "rejected": "no"}
    chat = {"model": "fspo", "messages": [{"role": "user", "content": MARK}], "user": MARK}
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/v1/preferences", texts),
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/chat/completions", {**chat, "stream": True}),
        ("POST", "/v1/chat/completions", {**chat, "messages": [{"role": "user", "content": "break at once"}]}),
        ("POST", "/v1/responses", {"model": MARK, "input": MARK}),
        ("GET", f"/v1/preferences/{MARK}", None),
        ("GET", f"/v1/preferences?after={MARK}&key={key}", None),
        ("GET", f"/v1/next-question?skip={MARK}", None),
        ("GET", f"/page/{MARK}", None),
        ("GET", f"/{key}/{MARK}", None),
        ("PUT", "/v1/me", {"description": MARK}),
        (MARK, "/v1/me", None),
        ("POST", "/v1/preferences", {**texts, MARK: MARK}),
    ]
    caplog.set_level(logging.INFO, ACCESS_LOG)
    with TestClient(app, headers=headers) as http:
        sent = [http.request(method, path, json=body) for method, path, body in requests]
        sent.append(http.get("/v1/me", headers={"authorization": f"Bearer {MARK}"}))
    # The client in this process may log its own requests; what it says is not the server's.
    records = [record for record in caplog.records if not record.name.startswith("httpx")]
    lines = [record.getMessage() for record in records if record.name == ACCESS_LOG]
    routes = {*app.openapi()["paths"], "/page/{name}", "unknown"}
    form = re.compile(r"(GET|POST|PUT|OTHER) (\S+) (\d{3}) \d+ ms ([0-9a-f]{16})")
    found = [match for line in lines if (match := form.fullmatch(line))]
    assert len(found) == len(lines) == len(sent)
    assert {match[2] for match in found} <= routes and "/v1/preferences/{preference}" in {match[2] for match in found}
    assert [(int(match[3]), match[4]) for match in found] == [
        (one.status_code, one.headers[REQUEST_ID]) for one in sent
    ]
    assert {200, 201, 400, 401, 404, 405, 502} <= {one.status_code for one in sent}
    text = "\n".join(caplog.handler.format(record) for record in records)
    assert sent[3].headers[REQUEST_ID] in text.replace(lines[3], ""), "the log of the error names the request"
    for secret in (MARK, key, owner.id):
        assert secret not in text
