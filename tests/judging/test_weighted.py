"""Log-prob-weighted preference: both orders averaged, and what stands in where there are no log-probs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ModelError
from fspo.judging.verdicts import Comparison, Verdict
from fspo.judging.weighted import WeightedJudge, letter_prompt, read_weighted_verdict
from fspo.llm.cache import RequestCache
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.quoting import texts_of
from fspo.llm.transport import Refusal
from fspo.llm.types import Completion, CompletionRequest
from fspo.preferences.types import User
from tests.fake_endpoint import fake_endpoint, stats

USER = User("u", "Likes it long.")
SHORT = User("ann", "Likes it short.")


def told(a: float, b: float, text: str = "A") -> Completion:
    first = tuple((token, math.log(chance)) for token, chance in (("A", a), ("B", b)) if chance)
    return Completion(text, 1, "stop", first=first)


class Scripted:
    """Answers what `answer` makes of (first response, second response)."""

    name = "scripted"

    def __init__(self, answer: Callable[[str, str], Completion]) -> None:
        self.answer, self.asked = answer, list[CompletionRequest]()

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.asked += requests
        found = []
        for request in requests:
            texts = texts_of(request.messages[0].content)
            completion = self.answer(texts["first"], texts["second"])
            found.append(completion if request.logprobs else Completion(completion.text, 1, completion.finish_reason))
        return found


def judging(llm: Scripted) -> WeightedJudge:
    return WeightedJudge(llm, lambda user, question, a, b: f"{question}|{a}|{b}")


def judged(llm: Scripted, *pairs: tuple[str, str]) -> list[tuple[str, str, Any, int]]:
    found = judging(llm).judge(Comparison(USER, "?", a, b) for a, b in pairs)
    return [(j.preferred, j.reason, j.probability, j.without_log_probs) for j in found]


def test_a_liking_for_the_first_place_cancels() -> None:
    [(preferred, reason, probability, without)] = judged(Scripted(lambda a, b: told(0.6, 0.2)), ("x", "y"))
    assert (preferred, reason, without) == ("tie", "inconsistent", 0)
    assert probability == pytest.approx(0.5)


def test_the_probability_is_that_of_the_letters_alone_in_both_orders() -> None:
    llm = Scripted(lambda first, second: told(0.6, 0.2) if first == "good" else told(0.1, 0.8, "B"))
    better, worse = judged(llm, ("good", "bad"), ("bad", "good"))
    expected = (0.75 + 1 - 0.1 / 0.9) / 2
    assert better == ("first", "", pytest.approx(expected), 0)
    assert worse == ("second", "", pytest.approx(1 - expected), 0)
    assert llm.asked[0].logprobs == 20


@given(st.floats(0.5, 1.0), st.floats(0.0, 1.0))
def test_the_two_probabilities_of_a_pair_add_up_to_one(one: float, other: float) -> None:
    llm = Scripted(lambda first, second: told(one, 1 - one) if first < second else told(other, 1 - other))
    (_, _, there, _), (_, _, back, _) = judged(llm, ("x", "y"), ("y", "x"))
    assert there is not None and back is not None
    assert there + back == pytest.approx(1.0)


def test_letters_are_recognised_with_space_and_case() -> None:
    tokens = ((" A", math.log(0.4)), ("a", math.log(0.2)), ("B", -2.0))
    verdict = read_weighted_verdict(Completion("A", 1, "stop", first=tokens))
    assert verdict.probability == pytest.approx(0.6 / (0.6 + math.exp(-2.0)))
    assert not verdict.without_log_probs


def test_a_first_token_that_is_mostly_no_letter_is_not_weighed() -> None:
    verdict = read_weighted_verdict(told(0.1, 0.3, '{"preferred": "B"}'))
    assert verdict == Verdict("second", probability=0.0, without_log_probs=True)


def test_without_log_probs_the_text_counts_and_is_counted() -> None:
    llm = Scripted(lambda first, second: Completion("A" if first == "good" else "B", 1, "stop"))
    assert judged(llm, ("good", "bad"), ("bad", "good")) == [("first", "", 1.0, 2), ("second", "", 0.0, 2)]


@pytest.mark.parametrize(
    ("completion", "reason"),
    [(Completion("Both are fine.", 4, "stop"), "unreadable"), (Completion("", 0, "refused"), "refused")],
)
def test_what_names_neither_is_a_failure_without_a_probability(completion: Completion, reason: str) -> None:
    assert judged(Scripted(lambda first, second: completion), ("x", "y")) == [("tie", reason, None, 2)]


@pytest.mark.parametrize("raised", [True, False])
def test_a_server_that_refuses_the_wish_is_asked_without_it(raised: bool) -> None:
    class Unwilling(Scripted):
        def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
            if any(request.logprobs for request in requests):
                if raised:
                    raise Refusal("logprobs are not supported")
                return [Completion("", 0, "refused") for _ in requests]
            return super().complete(requests)

    llm = Unwilling(lambda first, second: Completion("A" if first == "good" else "B", 1, "stop"))
    assert judged(llm, ("good", "bad"), ("good", "worse")) == [("first", "", 1.0, 2)] * 2


def test_a_judge_that_is_down_is_down() -> None:
    class Down(Scripted):
        def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
            raise ModelError("it can't be reached")

    with pytest.raises(ModelError, match="reached"):
        judged(Down(lambda first, second: told(1, 0)), ("x", "y"))


def test_nothing_is_asked_about_nothing() -> None:
    llm = Scripted(lambda first, second: told(1, 0))
    assert judged(llm) == []
    assert llm.asked == []


def test_the_prompt_shows_everything_and_another_one_is_another_judge() -> None:
    shown = letter_prompt(USER, "What?", "{first}", "two")
    assert all(part in shown for part in (USER.description, "What?", "{first}", "two"))
    llm = Scripted(lambda first, second: told(1, 0))
    assert judging(llm).identity != WeightedJudge(llm).identity


@pytest.mark.parametrize(("mode", "without"), [("give", 0), ("none", 2), ("refuse", 2)])
def test_an_endpoint_weighs_or_is_read_instead(mode: str, without: int, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with fake_endpoint(logprobs=mode) as address:
        config = EndpointConfig.model_validate({"base_url": address, "model": "m"})
        pairs = [
            Comparison(SHORT, "?", "Short.", "Quite a lot longer than the other one."),
            Comparison(SHORT, "?", "x", "y"),
        ]
        first, second = WeightedJudge(Endpoint(config, RequestCache(tmp_path / "a.sqlite"))).judge(pairs)
        assert (first.preferred, first.without_log_probs, second.without_log_probs) == ("first", without, without)
        assert first.probability == pytest.approx(1.0 if without else 0.8 / 0.9)
        assert second.probability == pytest.approx(0.5)
        answered = stats(address)["answered"]
        again = list(WeightedJudge(Endpoint(config, RequestCache(tmp_path / "a.sqlite"))).judge(pairs))
        assert again == [first, second]
        assert stats(address)["answered"] == answered
