"""What may have been paid for and never came counts, over a restart too."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from fspo.errors import ModelError, StorageError
from fspo.llm.budget import BudgetReached
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.types import CompletionRequest, Message
from tests.fake_endpoint import fake_endpoint

pytest.importorskip("aiohttp")

REQUEST = CompletionRequest((Message("user", "Hello"),), max_tokens=50)
PROMPT = len("Hello") + 64  # the most that may be counted for it


def asked(address: str, cache: RequestCache, **settings: object) -> Endpoint:
    usual = {"base_url": address, "model": "m", "retries": 0, "timeout": 0.3}
    return Endpoint(EndpointConfig.model_validate({**usual, **settings}), cache)


@pytest.mark.parametrize(
    ("fault", "lost"),
    [("hang", 1), ("disconnect", 1), ("truncated", 1), ("504", 1), ("524", 1), ("500", 0), ("520", 0)],
)
def test_an_answer_that_never_came_is_counted_after_a_restart(tmp_path: Path, fault: str, lost: int) -> None:
    with fake_endpoint(faults={fault: 1.0}) as address:
        wait = 0.3 if fault == "hang" else 30  # the others reply, on a busy machine late
        endpoint = asked(address, RequestCache(tmp_path / "a.sqlite"), timeout=wait)
        with pytest.raises(ModelError, match="run the same command again"):
            endpoint.complete([REQUEST])
    assert endpoint.spent == Spent(0, lost * PROMPT, lost * 50)
    assert RequestCache(tmp_path / "a.sqlite").spent() == endpoint.spent


def test_a_full_disk_leaves_nothing_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, asks = RequestCache(tmp_path / "a.sqlite"), {"budget": {"tokens": 2 * (PROMPT + 50)}}

    def full(kind: str) -> None:
        raise StorageError("The disk is full.")

    with fake_endpoint(replies={"no-choices": 1.0}) as address, monkeypatch.context() as patched:
        endpoint = asked(address, cache, **asks)
        patched.setattr(cache, "count", full)
        with pytest.raises(StorageError):
            endpoint.complete([REQUEST])
    with pytest.raises(BudgetReached):  # at once: nothing under way could make room
        endpoint.complete([replace(REQUEST, max_tokens=10_000)])


def test_nothing_is_counted_for_a_server_that_is_not_there(tmp_path: Path) -> None:
    endpoint = asked("http://127.0.0.1:9/v1", RequestCache(tmp_path / "a.sqlite"))
    with pytest.raises(ModelError, match="can't be reached"):
        endpoint.complete([REQUEST])
    assert endpoint.spent == RequestCache(tmp_path / "a.sqlite").spent() == Spent(0, 0, 0)


def test_a_server_that_goes_away_in_the_middle_is_given_up_in_time(tmp_path: Path) -> None:
    requests = (CompletionRequest((Message("user", f"Hello {number}"),), max_tokens=50) for number in range(400))
    with fake_endpoint(latency=0.02) as address:
        endpoint = asked(address, RequestCache(tmp_path / "a.sqlite"), retries=2, timeout=30, requests_in_flight=32)
        answers = endpoint.stream(requests, 64)
        taken = [next(answers) for _ in range(40)]
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"can't be reached.*run the same command again"):
        taken += answers
    assert time.monotonic() - began < 20  # one behind the other, the 32 would wait for 24 s at least
    assert len(taken) >= 40


def test_a_budget_holds_over_restarts_of_a_server_that_never_answers(tmp_path: Path) -> None:
    most = 3 * (PROMPT + 50)
    with fake_endpoint(faults={"hang": 1.0}) as address:
        for _ in range(3):
            with pytest.raises(ModelError, match="timed out"):
                asked(address, RequestCache(tmp_path / "a.sqlite"), budget={"tokens": most}).complete([REQUEST])
        with pytest.raises(BudgetReached, match="leaves no room"):
            asked(address, RequestCache(tmp_path / "a.sqlite"), budget={"tokens": most}).complete([REQUEST])
