"""Several models as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from fspo.errors import ConfigError
from fspo.llm.ensemble import Ensemble, Member, MemberConfig
from fspo.llm.types import Completion, CompletionRequest, Message


class Named:
    def __init__(self, name: str) -> None:
        self.name = name
        self.temperatures: set[float] = set()

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.temperatures |= {request.temperature for request in requests}
        return [Completion(f"{self.name} {request.seed}", 2, "stop") for request in requests]


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
    assert ensemble.name == "3 x small at T=0.7 + 1 x large"


def test_who_answers_depends_on_the_request_alone() -> None:
    ensemble = Ensemble([Member(Named("a")), Member(Named("b"))])
    whole = ensemble.complete(requests(20))
    assert [ensemble.complete([request])[0] for request in requests(20)] == whole
    assert [ensemble.member_of(request) for request in requests(20)] == [answer.text[0] for answer in whole]


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
