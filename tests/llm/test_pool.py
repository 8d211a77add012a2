"""The endpoints of a run, with one account for each server; and models that other processes open."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import StorageError
from fspo.llm.batching import CachedModel
from fspo.llm.budget import Budget, BudgetReached
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.pool import SERVERS, EndpointPool, ModelSource
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


def config(address: str, **settings: Any) -> EndpointConfig:
    return EndpointConfig.model_validate({"base_url": address, "model": "m", "requests_in_flight": 2, **settings})


def requests(count: int, text: str = "Hello") -> list[CompletionRequest]:
    return [CompletionRequest((Message("user", text),), max_tokens=20, seed=seed) for seed in range(count)]


def test_all_who_ask_one_server_share_its_budget_and_its_answers(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with answering(lambda body, count: reply(answer())) as server:
        budget = {"tokens": 8 * 6 + 100}  # an answer costs 8, and 89 are set aside for one
        judges = [config(server.address, budget=budget, retries=number) for number in range(3)]
        pool = EndpointPool(tmp_path, judges)
        first = pool.open(judges[0])
        assert first is pool.open(judges[0]) and first is not pool.open(judges[1])
        assert len(first.complete(requests(3))) == len(pool.open(judges[1]).complete(requests(3))) == 3
        assert len(server.bodies) == 3, "no judge asks what another one was answered"
        with pytest.raises(BudgetReached, match="The budget of 148 tokens leaves no room"):
            pool.open(judges[2]).complete(requests(90, "Good day"))
        sent = len(server.bodies)
        assert sent * 8 <= budget["tokens"]
        for judge in judges:
            with pytest.raises(BudgetReached):
                pool.open(judge).complete(requests(9, "Good night"))
        assert len(server.bodies) == sent
        (spending,) = pool.spending()
        assert (spending.file, spending.title) == ("answers-m.sqlite", "m")
        assert spending.spent == first.spent == Spent(sent, 3 * sent, 5 * sent)
        assert spending.reused == 3
        pool.close()
        with pytest.raises(BudgetReached):  # another call of the run
            EndpointPool(tmp_path, judges).open(judges[1]).complete(requests(9, "Good night"))


def test_budgets_of_one_server_may_differ_and_each_counts_all_that_is_spent_there(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with answering(lambda body, count: reply(answer())) as server:
        small, large = (config(server.address, budget={"tokens": tokens}) for tokens in (150, 10_000))
        pool = EndpointPool(tmp_path, [small, large])
        pool.open(large).complete(requests(20))
        with pytest.raises(BudgetReached, match="The budget of 150 tokens"):
            pool.open(small).complete(requests(1, "Good day"))
        pool.open(large).complete(requests(1, "Good day"))


def test_servers_that_give_their_models_one_name_have_files_of_their_own(tmp_path: Path) -> None:
    own, other, third = (config(f"http://127.0.0.1:{port}/v1") for port in (7, 8, 9))
    longer = config("http://127.0.0.1:7/v1/", timeout=7)
    pool = EndpointPool(tmp_path, [other, longer, third], own=own)
    files = [pool.file(one) for one in (own, longer, other, third)]
    assert files == ["answers.sqlite", "answers.sqlite", "answers-m.2.sqlite", "answers-m.3.sqlite"]
    moved = EndpointPool(tmp_path, [config("http://127.0.0.1:6/v1"), third], own=own)
    assert moved.file(config("http://127.0.0.1:6/v1")) == "answers-m.2.sqlite"
    assert moved.file(config("http://127.0.0.1:6/v1", model="n/M")) == "answers-n-m.sqlite"
    pool.open(other), pool.open(config("http://127.0.0.1:8/v1", timeout=8))
    assert len(pool.spending()) == 1


def test_each_server_keeps_its_answers_when_the_settings_list_them_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")

    def says(text: str) -> Callable[[dict[str, Any], int], bytes]:
        return lambda body, count: reply(answer(text))

    with answering(says("One.")) as one, answering(says("Two.")) as two, answering(says("Three.")) as three:
        first, second, third = (config(server.address) for server in (one, two, three))

        def asked(*listed: EndpointConfig, own: EndpointConfig | None = None) -> list[str]:
            pool = EndpointPool(tmp_path, listed, own=own)
            said = [pool.open(server).complete(requests(1))[0].text for server in ([own] if own else []) + list(listed)]
            pool.close()
            return said

        assert asked(first, second) == ["One.", "Two."]
        assert asked(second, first) == ["Two.", "One."]  # in another order
        assert asked(second) == ["Two."]  # the first one is removed
        assert asked(second, third) == ["Two.", "Three."]  # a new one comes last
        assert asked(third, second, first) == ["Three.", "Two.", "One."]
        assert asked(first, own=second) == ["Two.", "One."]  # one becomes the run's own
        assert [len(server.bodies) for server in (one, two, three)] == [1, 1, 1], "nothing is paid for twice"


def test_the_endpoint_of_a_run_may_change_places_with_a_judge(tmp_path: Path) -> None:
    own, other = (config(f"http://127.0.0.1:{port}/v1") for port in (7, 8))
    EndpointPool(tmp_path, [other], own=own).open(own)
    changed = EndpointPool(tmp_path, [own], own=other)
    assert (changed.file(own), changed.file(other)) == ("answers.sqlite", "answers-m.2.sqlite")
    away = config("http://127.0.0.1:9/v1")
    assert EndpointPool(tmp_path, [other], own=away).file(away) == "answers.sqlite"  # the own one has moved
    assert EndpointPool(tmp_path, [own], own=away).file(away) == "answers-m.sqlite"  # it is another one


def test_a_run_of_an_earlier_version_keeps_its_answers(tmp_path: Path) -> None:
    first, second, third = (config(f"http://127.0.0.1:{port}/v1") for port in (7, 8, 9))
    for name in ("answers-m.sqlite", "answers-m.2.sqlite"):
        RequestCache(tmp_path / name).close()
    pool = EndpointPool(tmp_path, [first, second])
    pool.open(second)
    assert [pool.file(one) for one in (first, second)] == ["answers-m.sqlite", "answers-m.2.sqlite"]
    assert EndpointPool(tmp_path, [second]).file(second) == "answers-m.2.sqlite"
    (tmp_path / "answers-m.3.sqlite").touch()  # of a third one, which that version asked
    assert EndpointPool(tmp_path, [second, third]).file(third) == "answers-m.4.sqlite"


@pytest.mark.parametrize("text", ["[]", '{"answers.sqlite": "m"}', '{"answers.sqlite": {"model": "m"}}', "{"])
def test_a_damaged_record_of_servers_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / SERVERS).write_text(text)
    with pytest.raises(StorageError, match=r"endpoints\.json .*delete it"):
        EndpointPool(tmp_path).open(config("http://127.0.0.1:7/v1"))


def test_what_is_under_way_when_the_pool_is_closed_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")

    def slow(body: dict[str, Any], count: int) -> bytes:
        time.sleep(0.3 if count else 0)
        return reply(answer())

    with answering(slow) as server:
        pool = EndpointPool(tmp_path, [config(server.address)])
        left = pool.open(config(server.address)).stream(iter(requests(100)), 100)
        next(left)  # and its consumer fails
        pool.close()
        sent = len(server.bodies)
    assert 0 < sent < 50
    assert RequestCache(tmp_path / "answers-m.sqlite").spent() == Spent(sent, 3 * sent, 5 * sent)
