"""Several models as one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from fspo.errors import ConfigError, ModelError
from fspo.llm.batching import CachedModel, ask_in_pieces
from fspo.llm.cache import RequestCache
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.ensemble import Ensemble, Member, MemberConfig
from fspo.llm.types import Completion, CompletionRequest, Message
from tests.fake_endpoint import fake_endpoint, stats


class Named:
    def __init__(self, name: str) -> None:
        self.name = name
        self.temperatures: set[float] = set()

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.temperatures |= {request.temperature for request in requests}
        return [Completion(f"{self.name} {request.seed}", 2, "stop") for request in requests]


class Line:
    """Pieces under way at a model elsewhere; the log tells what happened when."""

    def __init__(self, model: Elsewhere) -> None:
        self.model, self.pieces = model, list[list[CompletionRequest]]()

    def begin(self, requests: Sequence[CompletionRequest]) -> None:
        self.model.log.append(("begin", self.model.name))
        self.pieces.append(list(requests))

    def take(self) -> list[Completion]:
        self.model.log.append(("take", self.model.name))
        if self.model.fails:
            raise ModelError("It is away.")
        return self.model.complete(self.pieces.pop(0))

    def close(self) -> None:
        self.model.log.append(("close", self.model.name))


class Elsewhere(Named):
    def __init__(self, name: str, log: list[tuple[str, str]], fails: bool = False) -> None:
        super().__init__(name)
        self.log, self.fails = log, fails

    def asking(self) -> Line:
        return Line(self)


def requests(count: int) -> list[CompletionRequest]:
    return [CompletionRequest((Message("user", "Hello"),), seed=seed) for seed in range(count)]


def test_members_are_asked_by_weight_and_answers_stay_in_order() -> None:
    small, large = Named("small"), Named("large")
    ensemble = Ensemble([Member(small, 3.0, 0.7), Member(large)])
    answers = ensemble.complete(requests(400))
    assert [answer.text.split()[1] for answer in answers] == [str(n) for n in range(400)]
    counts = Counter(answer.text.split()[0] for answer in answers)
    assert 270 < counts["small"] < 330
    assert small.temperatures == {0.7}
    assert large.temperatures == {1.0}
    assert ensemble.name == ensemble.title == "3 x small at T=0.7 + 1 x large"


def test_who_answers_depends_on_the_request_alone() -> None:
    ensemble = Ensemble([Member(Named("a")), Member(Named("b"))])
    whole = ensemble.complete(requests(20))
    assert [ensemble.complete([request])[0] for request in requests(20)] == whole
    assert [ensemble.member_of(request) for request in requests(20)] == [answer.text[0] for answer in whole]


def test_members_elsewhere_are_asked_all_at_once() -> None:
    log: list[tuple[str, str]] = []
    here = Named("here")
    ensemble = Ensemble([Member(Elsewhere("a", log), 1.0, 0.5), Member(here), Member(Elsewhere("b", log))])
    whole = ensemble.complete(requests(60))
    assert [answer.text.split()[1] for answer in whole] == [str(n) for n in range(60)]
    assert Counter(answer.text.split()[0] for answer in whole).keys() == {"a", "b", "here"}
    assert {kind for kind, _ in log[:2]} == {"begin"}
    assert {name for _, name in log[:2]} == {"a", "b"}
    assert sorted(log[-2:]) == [("close", "a"), ("close", "b")]
    log.clear()
    assert list(ensemble.stream(iter(requests(60)), 5)) == whole
    assert [kind for kind, _ in log].index("take") > 8  # many pieces are under way before the first is waited for


def test_models_on_this_machine_get_pieces_of_about_a_batch(tmp_path: Path) -> None:
    here = CachedModel(Named("here"), RequestCache(tmp_path / "answers.sqlite"), batch=8)
    ensemble = Ensemble([Member(here), Member(Elsewhere("a", []), 3.0)])
    assert ensemble.batch == 32
    assert Ensemble([Member(Named("a"))]).batch is None
    assert {len(piece) for piece in ask_in_pieces(ensemble, requests(64), 1024)} == {32}


def test_others_are_not_told_where_a_member_is() -> None:
    away = Endpoint(EndpointConfig.model_validate({"base_url": "http://10.0.0.7:8000/v1", "model": "big"}))
    ensemble = Ensemble([Member(away, 1.0, 0.5), Member(Named("small"))])
    assert ensemble.title == "1 x big at T=0.5 + 1 x small"
    assert "10.0.0.7" in ensemble.name
    assert {ensemble.member_of(request) for request in requests(20)} == {"big at T=0.5", "small"}


def test_a_member_that_fails_stops_the_others() -> None:
    log: list[tuple[str, str]] = []
    ensemble = Ensemble([Member(Elsewhere("a", log, fails=True)), Member(Elsewhere("b", log))])
    with pytest.raises(ModelError, match="away"):
        ensemble.complete(requests(20))
    assert {name for kind, name in log if kind == "close"} == {"a", "b"}


def test_members_at_two_servers_answer_at_the_same_time(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with fake_endpoint(latency=0.2, limit=4) as first, fake_endpoint(latency=0.2, limit=4) as second:
        settings = [{"base_url": where, "model": "m", "requests_in_flight": 4} for where in (first, second)]
        members = [Member(Endpoint(EndpointConfig.model_validate(each))) for each in settings]
        ensemble = Ensemble(members)
        ensemble.complete(requests(8))  # the connections are there
        seen = [stats(where)["answered"] for where in (first, second)]
        assert min(seen) > 0
        began = time.monotonic()
        streamed = list(ensemble.stream(iter(requests(48)), 8))
        together = time.monotonic() - began
        alone = 0.0
        for place in (0, 1):
            own = [request for request in requests(48) if ensemble._place(request) == place]
            began = time.monotonic()
            assert members[place].model.complete(own) == [
                answer for request, answer in zip(requests(48), streamed, strict=True) if request in own
            ]
            alone += time.monotonic() - began
    assert together < 0.8 * alone


def test_an_ensemble_needs_members_with_weight() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Ensemble([])
    with pytest.raises(ConfigError, match="above 0"):
        Ensemble([Member(Named("a"), 0.0)])


def test_a_member_is_an_endpoint_or_a_model() -> None:
    assert MemberConfig.model_validate({"model": "smollm2-135m"}).weight == 1.0
    for wrong in ({}, {"model": "m", "endpoint": {"base_url": "http://127.0.0.1/v1", "model": "m"}}):
        with pytest.raises(ValidationError, match="either an endpoint or a model"):
            MemberConfig.model_validate(wrong)
