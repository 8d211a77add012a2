"""The endpoint, asked over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fspo.errors import ConfigError, ModelError, StorageError
from fspo.llm.budget import BudgetReached
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.http_errors import retry_after
from fspo.llm.transport import WebTransport
from fspo.llm.types import Completion, CompletionRequest, Message

pytest.importorskip("aiohttp")


class Scripted(ThreadingHTTPServer):
    """Answers with what `reply` makes of a request's body, and keeps the bodies and keys it saw."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.failures: list[int] = []
        self.broken: set[int] = set()
        self.retry_after = {"retry-after-ms": "1"}
        self.usage: Any = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        self.answered_first = 0
        self.raw: bytes | None = None
        self.refusal: Any = {"error": {"message": "scripted", "type": "scripted"}}

    def reply(self, body: dict[str, Any]) -> str:
        return f"Well, {body['messages'][-1]['content']} #{body['seed']}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers.get("authorization", ""))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if body["seed"] in self.server.broken:
            self._send(500, self.server.refusal)
            return
        if self.server.answered_first:
            self.server.answered_first -= 1
        elif self.server.failures:
            self._send(self.server.failures.pop(0), self.server.refusal)
            return
        message = {"role": "assistant", "content": self.server.reply(body)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        self._send(200, answer | ({} if self.server.usage is None else {"usage": self.server.usage}))

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode() if self.server.raw is None else self.server.raw
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in self.server.retry_after.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield scripted
    scripted.shutdown()
    scripted.server_close()
    thread.join()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Whoever started the tests in the background may have had interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def endpoint(server: Scripted, cache: RequestCache | None = None, **settings: Any) -> Endpoint:
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    usual = {"base_url": address, "model": "m", "key_variable": "FSPO_TEST_KEY"}
    return Endpoint(EndpointConfig.model_validate({**usual, **settings}), cache)


def request(text: str, seed: int = 0, prefix: str = "") -> CompletionRequest:
    return CompletionRequest((Message("system", "Be brief."), Message("user", text)), prefix=prefix, seed=seed)


def test_answers_come_in_the_order_of_the_requests(server: Scripted) -> None:
    answers = endpoint(server).complete([request("hello", seed) for seed in range(12)])
    assert [answer.text for answer in answers] == [f"Well, hello #{seed}" for seed in range(12)]
    assert {answer.tokens for answer in answers} == {5}
    assert sorted(body["seed"] for body in server.bodies) == list(range(12))


def test_the_key_comes_from_the_environment(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSPO_TEST_KEY", "sk-secret")
    asked = endpoint(server)
    asked.complete([request("hello")])
    assert server.keys == ["Bearer sk-secret"]
    assert "secret" not in asked.name + repr(vars(asked)["_config"])


def test_no_key_leaves_the_machine_unless_it_is_named(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    endpoint(server, key_variable=None).complete([request("hello")])
    assert server.keys == ["Bearer none"]
    server.failures = [401]
    with pytest.raises(ConfigError, match="name the variable that holds it: key_variable"):
        endpoint(server, key_variable=None).complete([request("hello")])


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("http://me:sk-secret@127.0.0.1/v1", "a user or a password"),
        ("https://sk-secret@example.org/v1", "a user or a password"),
        ("https://example.org/v1?api_key=sk-secret", "a query"),
        ("https://example.org/v1/?key=sk-secret", "a query"),
        ("https://example.org?token=sk-secret", "a query"),
        ("https://example.org/v1#sk-secret", "a query"),
    ],
)
def test_a_key_in_the_address_is_refused(address: str, found: str) -> None:
    with pytest.raises(ValidationError, match=f"the address holds {found}.* name that as key_variable"):
        EndpointConfig(base_url=address, model="m")


def test_a_prefix_that_is_taken_up_is_not_part_of_the_answer(server: Scripted) -> None:
    (answer,) = endpoint(server).complete([request("hello", prefix="Well,")])
    assert not answer.anew
    assert answer.after("Well,").startswith("Well, hello")
    assert "Begin your answer with these words: Well," in server.bodies[0]["messages"][-1]["content"]


def test_an_answer_that_ignores_the_prefix_stands_alone(server: Scripted) -> None:
    (answer,) = endpoint(server).complete([request("hello", prefix="Boring:")])
    assert answer.anew
    assert answer.after("Boring:").startswith("Well, hello")


def test_overload_is_asked_again(server: Scripted) -> None:
    server.failures = [429, 500]
    (answer,) = endpoint(server).complete([request("hello")])
    assert answer.text == "Well, hello #0"
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, ConfigError, "FSPO_TEST_KEY"),
        (404, ConfigError, "does not know the model 'm'"),
        (400, ModelError, r"refuses a request, and would each time \(scripted\); change the settings"),
        (422, ModelError, r"refuses a request, and would each time \(scripted\); change the settings"),
        (418, ModelError, r"failed on a request \(418: scripted\); run the same command again"),
    ],
)
def test_refusals_are_one_sentence(server: Scripted, status: int, error: type[Exception], words: str) -> None:
    server.failures = [status]
    with pytest.raises(error, match=words):
        endpoint(server).complete([request("hello")])


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ({"error": {"message": "your words are\nnot supported.\x1b[31m"}}, "(your words are not supported. [31m)"),
        ({"error": {"message": "The key sk-secret is odd."}}, "(The key *** is odd)"),
        ({"error": "no such option"}, "(no such option)"),
        ({"object": "error", "message": "too long"}, "(too long)"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "wrong"}]}, '([{"loc": ["body", "seed"], "msg": "wrong"}])'),
        ({"error": {"message": "word " * 100}}, "word wo...)"),
        ({}, "(it does not say why)"),
    ],
)
def test_a_refusal_is_told_as_the_server_puts_it(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, refusal: Any, told: str
) -> None:
    monkeypatch.setenv("FSPO_TEST_KEY", "sk-secret")
    server.failures, server.refusal = [400], refusal
    with pytest.raises(ModelError) as caught:
        endpoint(server).complete([request("hello")])
    message = str(caught.value)
    assert told in message
    assert len(message) < 350
    assert message.isprintable()
    assert "sk-secret" not in message
    assert "again" not in message
    assert len(server.bodies) == 1


def test_one_text_that_is_refused_is_a_reject_and_the_others_are_kept(server: Scripted) -> None:
    server.failures = [400]
    answers = endpoint(server, requests_in_flight=1).complete([request("bad"), request("good")])
    assert [(answer.text, answer.finish_reason) for answer in answers] == [("", "refused"), ("Well, good #0", "stop")]


@pytest.mark.parametrize(
    "raw",
    [b"<html>Sign in</html>", b"", b"{", b"[]", b'"text"', b'{"choices": [{}]}', b'{"choices": 3}', b"null"],
)
def test_what_is_no_answer_of_such_a_server_is_one_sentence(server: Scripted, raw: bytes) -> None:
    server.raw = raw
    with pytest.raises(ModelError, match=r"does not answer as an OpenAI-compatible server does; check the address"):
        endpoint(server).complete([request("hello")])


def test_nothing_of_the_environment_is_sent_but_the_key_that_is_named(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FSPO_TEST_KEY", "sk-mine")
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sk-other")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-key: sk-other")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password sk-other")
    monkeypatch.setenv("HOME", str(tmp_path))
    endpoint(server).complete([request("hello")])
    assert "sk-other" not in json.dumps(server.headers)
    assert server.keys == ["Bearer sk-mine"]


@pytest.mark.parametrize("address", ["me:secret@host/v1", "localhost:8000/v1", "ftp://host/v1", "http:///v1"])
def test_an_address_without_a_scheme_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="must begin with http:// or https://"):
        EndpointConfig(base_url=address, model="m")


def test_an_endpoint_that_is_down_is_named() -> None:
    down = Endpoint(EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", retries=0))
    with pytest.raises(ModelError, match=r"http://127\.0\.0\.1:9/v1 can't be reached"):
        down.complete([request("hello")])


def test_an_answer_in_the_cache_is_not_asked_for_again(server: Scripted, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    requests = [request("hello", seed) for seed in range(5)]
    first = endpoint(server, cache=RequestCache(path)).complete(requests[:3])
    again = endpoint(server, cache=RequestCache(path)).complete(requests)
    assert again[:3] == first
    assert sorted(body["seed"] for body in server.bodies) == [0, 1, 2, 3, 4]
    other = endpoint(server, model="other", cache=RequestCache(path)).complete(requests[:1])
    assert other == first[:1]
    assert len(server.bodies) == 6  # another model's answers are its own
    assert RequestCache(path).spent() == Spent(6, 18, 30)


def test_equal_requests_are_sent_once_and_answered_alike(server: Scripted) -> None:
    asked = [request(text, seed) for seed in range(3) for text in ("hello", "hello", "there")]
    answers = [answer.text for answer in endpoint(server).complete(asked)]
    assert answers == [f"Well, {text} #{seed}" for seed in range(3) for text in ("hello", "hello", "there")]
    assert len(server.bodies) == 6


def test_a_stream_asks_ahead_and_no_further(server: Scripted) -> None:
    drawn = 0

    def requests() -> Iterator[CompletionRequest]:
        nonlocal drawn
        for drawn in range(200):
            yield request("hello", drawn)

    stream = endpoint(server, requests_in_flight=16).stream(requests(), ahead=40)
    assert [next(stream).text for _ in range(20)] == [f"Well, hello #{seed}" for seed in range(20)]
    assert 20 <= drawn <= 20 + 40 + 5
    assert [answer.text for answer in stream] == [f"Well, hello #{seed}" for seed in range(20, 200)]
    assert sorted(body["seed"] for body in server.bodies) == list(range(200))


def test_a_stream_that_is_left_sends_nothing_more(server: Scripted, tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    asked = endpoint(server, requests_in_flight=2, cache=cache)
    stream = asked.stream((request("hello", seed) for seed in range(1000)), ahead=800)
    next(stream)
    stream.close()
    sent = len(server.bodies)
    time.sleep(0.05)
    assert len(server.bodies) == sent < 400
    assert cache.spent().requests == sent  # what was under way is kept
    assert asked.complete([request("hello", 999)])[0].text == "Well, hello #999"


def test_a_call_after_a_stream_that_was_left_is_answered(server: Scripted) -> None:
    asked = endpoint(server)
    for turn in range(30):
        stream = asked.stream((request("hello", seed) for seed in range(turn * 100, turn * 100 + 9)), ahead=8)
        next(stream)
        stream.close()
        assert asked.complete([request("there", turn)])[0].text == f"Well, there #{turn}"


def test_a_stream_that_is_left_stops_no_other(server: Scripted) -> None:
    asked = endpoint(server, requests_in_flight=2)
    left = asked.stream((request("hello", seed) for seed in range(100)), ahead=80)
    other = asked.stream((request("there", seed) for seed in range(40)), ahead=16)
    next(left), next(other)
    left.close()
    assert len(list(other)) == 39


def test_an_error_that_came_as_an_answer_is_not_kept(server: Scripted, tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    server.raw = b'{"error": {"message": "no free GPU"}, "choices": null}'
    with pytest.raises(ModelError, match="no free GPU"):
        endpoint(server, cache=RequestCache(path)).complete([request("hello")])
    server.raw = None
    assert endpoint(server, cache=RequestCache(path)).complete([request("hello")])[0].text == "Well, hello #0"


def test_one_garbled_answer_among_good_ones_is_asked_again(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, reply = endpoint(server), server.reply
    asked.complete([request("hello")])
    server.raw = b"{not JSON"

    def recovering(body: dict[str, Any]) -> str:
        if len(server.bodies) > 2:
            server.raw = None
        return reply(body)

    monkeypatch.setattr(server, "reply", recovering)
    assert asked.complete([request("there")])[0].text == "Well, there #0"
    assert len(server.bodies) == 3


def test_a_request_that_is_refused_again_does_not_stop_a_resumed_call(server: Scripted, tmp_path: Path) -> None:
    path, both = tmp_path / "answers.sqlite", [request("good"), request("bad")]
    server.failures, server.answered_first = [400], 1
    first = endpoint(server, requests_in_flight=1, cache=RequestCache(path)).complete(both)
    server.failures = [400]
    assert list(endpoint(server, cache=RequestCache(path)).stream(iter(both), ahead=1)) == first


def test_further_fields_are_sent_and_decide_what_is_the_same(server: Scripted, tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    for extra in ({}, {"chat_template_kwargs": {"enable_thinking": False}}):
        endpoint(server, cache=cache, extra_body=extra).complete([request("hello")])
    assert [body.get("chat_template_kwargs") for body in server.bodies] == [None, {"enable_thinking": False}]


def test_thoughts_are_no_part_of_an_answer(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "reply", lambda body: "<think>A or B? A.</think>\n\nB")
    assert endpoint(server).complete([request("hello")])[0].text == "B"
    monkeypatch.setattr(server, "reply", lambda body: "<think>A or B? It goes on and on")
    assert endpoint(server).complete([request("hello")])[0].text == ""


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_answers_come_sends_nothing_more(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, reply = endpoint(server, requests_in_flight=4), server.reply

    def interrupting(body: dict[str, Any]) -> str:
        if body["seed"] == 20:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        return reply(body)

    monkeypatch.setattr(server, "reply", interrupting)
    with pytest.raises(KeyboardInterrupt):
        asked.complete([request("hello", seed) for seed in range(400)])
    sent = len(server.bodies)
    time.sleep(0.2)
    assert len(server.bodies) == sent < 390


@pytest.mark.parametrize("seed", range(5))
def test_what_stops_the_others_is_told_and_not_that_they_were_stopped(server: Scripted, seed: int) -> None:
    server.failures, server.retry_after = [429], {"retry-after": "1"}
    asked = endpoint(server, requests_in_flight=4, budget={"tokens": 600})
    with pytest.raises(BudgetReached):
        list(asked.stream((request("hello", number) for number in range(seed, 100)), ahead=8))


def test_it_works_inside_a_running_event_loop(server: Scripted) -> None:
    async def notebook() -> str:
        return endpoint(server).complete([request("hello")])[0].text

    assert asyncio.run(notebook()) == "Well, hello #0"


def test_answers_that_came_are_kept_when_others_fail(server: Scripted, tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    server.broken = {1, 3}
    asked = endpoint(server, retries=1, cache=cache)
    answers = asked.complete([request("hello", seed) for seed in range(5)])
    assert [answer.finish_reason for answer in answers] == ["stop", "failed", "stop", "failed", "stop"]
    assert asked.replies["failed requests"] == 2
    assert sum(cache.failures().values()) == 2
    assert len(server.bodies) == 3 + 2 * 2
    server.broken = set()
    answers = endpoint(server, cache=cache).complete([request("hello", seed) for seed in range(5)])
    assert [answer.text for answer in answers] == [f"Well, hello #{seed}" for seed in range(5)]
    assert len(server.bodies) == 3 + 2 * 2 + 2
    assert cache.failures() == {}


@pytest.mark.parametrize("at_once", [1, 20])
def test_the_budget_stops_before_it_is_passed_and_not_much_before(
    server: Scripted, tmp_path: Path, at_once: int
) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    requests = [request("hello", seed) for seed in range(200)]
    for limit in (600, 900):
        asked = endpoint(server, requests_in_flight=at_once, budget={"tokens": limit}, cache=cache)
        with pytest.raises(BudgetReached, match=f"The budget of {limit} tokens leaves no room") as stopped:
            asked.complete(requests)
        spent = asked.spent
        used = f"{spent.prompt_tokens + spent.tokens} tokens are used ({spent.requests} requests are answered)"
        assert used in str(stopped.value)
        assert re.search(r"\d+ tokens, the most that it may take, have to be set aside", str(stopped.value))
        # What one request may cost at most is left over: 14 bytes, 2 messages, 64 tokens.
        assert limit - 14 - 2 * 64 - 64 - 8 < spent.prompt_tokens + spent.tokens == 8 * len(server.bodies) <= limit
    assert len({body["seed"] for body in server.bodies}) == len(server.bodies)  # nothing paid for twice


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_a_server_that_does_not_count_can_not_pass_the_budget(server: Scripted, tmp_path: Path, usage: Any) -> None:
    server.usage = usage
    cache = RequestCache(tmp_path / "answers.sqlite")
    with pytest.raises(BudgetReached):
        endpoint(server, budget={"tokens": 2000}, cache=cache).complete([request("hello", n) for n in range(100)])
    assert 5 <= len(server.bodies) <= 2000 // 150
    assert cache.spent().requests == len(server.bodies)
    assert 1000 < cache.spent().prompt_tokens + cache.spent().tokens <= 2000


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_sends_nothing_more_and_keeps_what_came(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, put = RequestCache(tmp_path / "answers.sqlite"), RequestCache.put

    def interrupted(self: RequestCache, key: str, completion: Completion, *more: Any) -> None:
        put(self, key, completion, *more)
        os.kill(os.getpid(), signal.SIGINT)

    server.failures = [429] * 1000
    server.retry_after = {"retry-after": "30"}
    monkeypatch.setattr(RequestCache, "put", interrupted)
    server.answered_first = 1
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endpoint(server, cache=cache).complete([request("hello", seed) for seed in range(60)])
    assert time.monotonic() - started < 20  # and not the 30 s that the server asks for
    assert cache.spent().requests == 1
    assert len(server.bodies) <= 32


def test_a_full_disk_stops_the_spending(server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(RequestCache, "put", full)
    with pytest.raises(StorageError, match="The disk is full"):
        endpoint(server, requests_in_flight=2, cache=RequestCache(tmp_path / "a.sqlite")).complete(
            [request("hello", seed) for seed in range(50)]
        )
    assert len(server.bodies) <= 4


def test_a_server_that_only_fails_is_given_up_once_and_not_for_each_request(server: Scripted) -> None:
    server.failures = [503] * 1000
    with pytest.raises(ModelError, match=r"failed on a request|requests failed"):
        endpoint(server, requests_in_flight=2, retries=1).complete([request("hello", seed) for seed in range(40)])
    assert len(server.bodies) <= 8


def test_prices_make_a_budget_of_dollars(server: Scripted) -> None:
    prices = {"dollars_per_million_prompt_tokens": 1e6, "dollars_per_million_answer_tokens": 2e6}
    asked = endpoint(server, budget=prices)
    asked.complete([request("hello")])
    assert asked.cost(asked.spent) == 3 + 2 * 5
    with pytest.raises(BudgetReached, match="20 dollars"):
        endpoint(server, budget={**prices, "dollars": 20}).complete([request("hello")])
    endpoint(server, budget={**prices, "dollars": 1000}).complete([request("hello")])
    with pytest.raises(ValidationError, match="dollars_per_million_prompt_tokens and"):
        endpoint(server, budget={"dollars": 1})


def test_the_server_is_waited_for_as_long_as_it_says(server: Scripted) -> None:
    server.failures, server.retry_after = [429], {"retry-after": "1"}
    started = time.monotonic()
    endpoint(server).complete([request("hello")])
    assert 0.9 < time.monotonic() - started < 30  # at most a minute is waited


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "1e9"}, 60.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_how_long_a_server_may_ask_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == (seconds or 0.0)


def test_a_refused_key_stops_all_other_requests(server: Scripted) -> None:
    server.failures = [401] * 100
    with pytest.raises(ConfigError, match="refuses requests without a key"):
        endpoint(server, requests_in_flight=2).complete([request("hello", seed) for seed in range(60)])
    assert len(server.bodies) <= 4


def test_a_missing_key_and_a_wrong_one_are_told_apart(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    server.failures = [401] * 2
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match="without a key; SOME_KEY is not set in the environment; set it"):
        endpoint(server, key_variable="SOME_KEY").complete([request("hello")])
    monkeypatch.setenv("SOME_KEY", "wrong")
    with pytest.raises(ConfigError, match="refuses the key in SOME_KEY; set SOME_KEY to another"):
        endpoint(server, key_variable="SOME_KEY").complete([request("hello")])


def test_a_server_that_moves_is_not_asked_again(server: Scripted, tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    said = endpoint(server, cache).complete([request("once")])
    (base_url, moved) = (endpoint(server)._config.base_url, "http://127.0.0.1:9/v1")

    assert Endpoint(EndpointConfig(base_url=moved, model="m", retries=0), cache).complete([request("once")]) == said
    assert base_url != moved


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("http://host:abc/v1", "the port after the host must be a number"),
        ("http://host:99999/v1", "the port after the host must be a number"),
        ("http://host:0/v1", "the port after the host must be a number"),
        ("http://my host/v1", "must not hold a space"),
        ("http://host/v1\n", "must not hold a space"),
    ],
)
def test_an_address_that_can_not_be_asked_is_refused(address: str, found: str) -> None:
    with pytest.raises(ValidationError, match=found):
        EndpointConfig(base_url=address, model="m")


def test_an_address_that_names_no_host_is_one_sentence() -> None:
    odd = Endpoint(EndpointConfig(base_url="http://\u2260\u0301.invalid/v1", model="m", retries=0))
    with pytest.raises(ModelError, match=r"http://.*\.invalid/v1 can't be reached.*correct the address"):
        odd.complete([request("hello")])


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_requests_go_by_the_proxy_of_the_environment(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{server.server_address[1]}")
    asked = endpoint(server, base_url="http://model.invalid/v1")
    assert asked.complete([request("hello")])[0].text == "Well, hello #0"
    assert server.headers[0]["host"] == "model.invalid"
    assert server.headers[0]["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("NO_PROXY", "model.invalid")
    with pytest.raises(ModelError, match=r"^http://model\.invalid/v1 can't be reached"):
        endpoint(server, base_url="http://model.invalid/v1", retries=0).complete([request("hello")])


@pytest.mark.usefixtures("no_proxy")
def test_a_proxy_of_another_kind_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"^ALL_PROXY names a proxy that fspo can't use; set it to one of http://"):
        WebTransport(EndpointConfig(base_url="http://model.invalid/v1", model="m"))
