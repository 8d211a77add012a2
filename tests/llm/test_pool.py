from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.llm.batching import CachedModel
from fspo.llm.budget import Budget
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.pool import ModelSource
from fspo.llm.types import CompletionRequest, Message
from tests.llm.answering import answer, answering, reply

PRICED = {"dollars_per_million_prompt_tokens": 1.0, "dollars_per_million_answer_tokens": 3.0}


def endpoint(budget: Budget, in_flight: int = 100) -> EndpointConfig:
    return EndpointConfig(
        base_url="http://127.0.0.1:9/v1",
        model="m",
        key_variable="SOME_KEY",
        requests_in_flight=in_flight,
        budget=budget,
    )


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.lists(st.integers(1, 64), min_size=1))
def test_shares_of_a_budget_never_come_to_more_than_is_left(
    tokens: int, prompt: int, answer: int, users: list[int]
) -> None:
    budget = Budget(tokens=tokens, dollars=5.0, **PRICED)
    spent = Spent(1, prompt, answer)
    source = ModelSource("m", None, endpoint(budget)).divided(2, spent)
    opener = source.opener()
    shares = [opener(None, count / sum(users), print) for count in users]  # type: ignore[arg-type]
    budgets = [share._config.budget for share in shares if isinstance(share, Endpoint)]
    assert sum(share.tokens or 0 for share in budgets) <= max(0, tokens - prompt - answer)
    left = max(0.0, 5.0 - budget.cost(prompt, answer))
    assert sum(share.dollars or 0.0 for share in budgets) <= left * (1 + 1e-9)
    assert source.endpoint is not None and source.endpoint.identity() == endpoint(budget).identity()


def test_requests_in_flight_are_divided_among_workers() -> None:
    for workers, own in ((1, 100), (3, 33), (1000, 1)):
        source = ModelSource("m", None, endpoint(Budget())).divided(workers, Spent(0, 0, 0))
        assert source.endpoint is not None and source.endpoint.requests_in_flight == own


def test_a_key_is_not_sent_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_KEY", "very-secret")
    source = ModelSource("m", None, endpoint(Budget())).divided(2, Spent(0, 0, 0))
    source.opener()(RequestCache(tmp_path / "a.sqlite"), 1.0, print)
    assert b"very-secret" not in pickle.dumps(source)
    assert pickle.loads(pickle.dumps(source)) == source


def test_what_is_learned_is_said_where_the_model_was_opened(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    lines: list[str] = []

    def script(body: dict[str, Any], count: int) -> bytes:
        return reply({"error": "Unknown field: seed"}, 400) if "seed" in body else reply(answer())

    with answering(script) as server:
        source = ModelSource("m", None, EndpointConfig(base_url=server.address, model="m"))
        model = source.divided(2, Spent(0, 0, 0)).opener()(RequestCache(tmp_path / "a.sqlite"), 1.0, lines.append)
        assert model.complete([CompletionRequest((Message("user", "Hello"),))])[0].text == "Good."
    assert len(lines) == 1 and "takes no seed" in lines[0]


def test_a_local_model_keeps_its_name_wherever_it_lies(tiny_model_path: Path, tmp_path: Path) -> None:
    source = ModelSource("some/model", tiny_model_path)
    assert source.divided(4, Spent(0, 0, 0)) == source
    model = source.opener()(RequestCache(tmp_path / "a.sqlite"), 1.0, print)
    assert isinstance(model, CachedModel) and model.name == "some/model"
