from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from fspo.errors import ConfigError, ModelError
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.reach import check_endpoint

pytest.importorskip("aiohttp")

LIST = {"data": [{"id": "known"}]}


class _Scripted(BaseHTTPRequestHandler):
    """Answers a GET and a POST by what stands in the script; notes what came."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[dict[str, tuple[int, Any]]] = {}
    came: ClassVar[list[tuple[str, str]]] = []

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).came.append((self.command, self.headers.get("Authorization", "")))
        status, body = type(self).script[self.command]
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status in (301, 302):
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _answer

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def server(get: tuple[int, Any], post: tuple[int, Any] = (500, {})) -> Iterator[EndpointConfig]:
    _Scripted.script, _Scripted.came = {"GET": get, "POST": post}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Scripted) as held:
        thread = threading.Thread(target=held.serve_forever)
        thread.start()
        try:
            yield EndpointConfig(base_url=f"http://127.0.0.1:{held.server_address[1]}/v1", model="known", retries=0)
        finally:
            held.shutdown()
            thread.join()


def answer(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


def methods() -> list[str]:
    return [method for method, _ in _Scripted.came]


def test_a_list_with_the_model_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REACH_KEY", "secret")
    with server((200, LIST)) as config:
        check_endpoint(config.model_copy(update={"key_variable": "REACH_KEY"}))
        assert _Scripted.came == [("GET", "Bearer secret")]
        check_endpoint(config)
        assert _Scripted.came[1:] == [("GET", "")]


def test_a_proxy_gets_no_key_for_a_server_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REACH_KEY", "secret")
    with server((200, LIST)) as config:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing is there
        check_endpoint(config.model_copy(update={"key_variable": "REACH_KEY"}))
        assert _Scripted.came == [("GET", "Bearer secret")]


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_the_list_of_models_is_asked_for_by_the_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with server((200, LIST)) as config:
        monkeypatch.setenv(variable, config.base_url.removesuffix("/v1"))
        check_endpoint(config.model_copy(update={"base_url": "http://far-away.invalid/v1"}))
        assert methods() == ["GET"]


@pytest.mark.parametrize(
    "get", [(200, {"data": [{"id": "other"}]}), (200, b"hello"), (200, [1]), (404, {}), (302, {}), (501, {})]
)
def test_a_server_whose_list_says_less_is_sent_one_request(get: tuple[int, Any]) -> None:
    with server(get, (200, answer("Yes."))) as config:
        check_endpoint(config)
        assert methods() == ["GET", "POST"]
        if get[0] < 500:
            check_endpoint(config, answers=False)
            assert methods() == ["GET", "POST", "GET"]


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_server_that_refuses_one_request_may_answer_others(status: int) -> None:
    with server((404, {}), (status, {"error": {"message": "not this one"}})) as config:
        check_endpoint(config)
        assert methods() == ["GET", "POST"]


@pytest.mark.parametrize(
    ("get", "post", "error"),
    [
        ((401, {}), (401, {"error": {"message": "wrong key"}}), ConfigError),
        ((404, {}), (404, {"error": {"message": "no such model"}}), ConfigError),
        ((404, {}), (429, {"error": {"message": "no credit", "code": "insufficient_quota"}}), ModelError),
    ],
)
def test_what_would_stop_every_request_is_an_error(
    get: tuple[int, Any], post: tuple[int, Any], error: type[Exception]
) -> None:
    with server(get, post) as config, pytest.raises(error):
        check_endpoint(config)


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_is_away_is_an_error(answers: bool) -> None:
    with pytest.raises(ModelError, match="can't be reached"):
        check_endpoint(EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", retries=0), answers=answers)
