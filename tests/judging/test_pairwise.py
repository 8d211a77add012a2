"""The pairwise judge: both orders, what it reads, and what the orders tell of it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.judging.pairwise import PairwiseJudge, read_verdict
from fspo.judging.verdicts import MIRRORED, Comparison, Failure, Judgement, OrderTally, Preferred, Verdict
from fspo.llm.quoting import texts_of
from fspo.llm.types import Completion, CompletionRequest
from fspo.preferences.types import User

USER = User("u", "Likes the number to be large.")


class Judge:
    """Names the larger of two numbers with a chance that depends on where it stands."""

    name = "numbers"

    def __init__(self, when_first: float, when_second: float) -> None:
        self.when_first, self.when_second = when_first, when_second
        self.sizes: list[int] = []

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.sizes.append(len(requests))
        return [Completion(self._answer(request), 3, "stop") for request in requests]

    def _answer(self, request: CompletionRequest) -> str:
        texts = texts_of(request.messages[0].content)
        first, second = int(texts["first"]), int(texts["second"])
        rng = random.Random(f"{first} or {second}")
        named = rng.random() < (self.when_first if first > second else self.when_second)
        return '{"preferred": "A"}' if (first > second) == named else 'Well: {"preferred": "B"}.'


def judging(llm: Judge) -> PairwiseJudge:
    return PairwiseJudge(llm, lambda user, question, a, b: f"{user.description}|{question}|{a}|{b}", at_once=16)


def tallied(llm: Judge, pairs: int = 3000) -> tuple[OrderTally, float]:
    """The tally of many pairs, and the share of the decided ones that are decided right."""
    rng = random.Random(0)
    numbers = [rng.sample(range(1000), 2) for _ in range(pairs)]
    comparisons = (Comparison(USER, "?", str(a), str(b)) for a, b in numbers)
    tally, right = OrderTally(), []
    for (a, b), judgement in zip(numbers, judging(llm).judge(comparisons), strict=True):
        tally.add(judgement)
        if judgement.preferred != "tie":
            right.append((judgement.preferred == "first") == (a > b))
    return tally, sum(right) / len(right) if right else math.nan


def test_a_good_judge_decides_every_pair_whatever_the_order() -> None:
    llm = Judge(1.0, 1.0)
    assert judging(llm).compare(USER, "?", "7", "3") == "first"
    assert judging(llm).compare(USER, "?", "3", "7") == "second"
    assert judging(llm).name == "numbers in both orders"


def test_a_judge_of_the_first_place_decides_nothing() -> None:
    tally, _ = tallied(Judge(1.0, 0.0), 100)
    assert tally.agreed == 0
    assert tally.undecided == {"inconsistent": 100}
    assert tally.first_share == 1.0
    assert tally.agreement == 0.0
    assert math.isnan(tally.accuracy)


@pytest.mark.parametrize(("first", "second"), [(0.7, 0.7), (0.95, 0.75), (0.9, 0.4), (1.0, 0.6)])
def test_the_accuracy_of_the_labels_is_estimated_from_the_orders(first: float, second: float) -> None:
    tally, true = tallied(Judge(first, second))
    assert tally.accuracy == pytest.approx(true, abs=0.03)
    assert tally.first_share == pytest.approx((first + 1 - second) / 2, abs=0.03)


def test_a_judge_biased_70_to_30_towards_the_first_place_gives_labels_that_are_worth_nothing() -> None:
    tally, true = tallied(Judge(0.7, 0.3))
    assert true == pytest.approx(0.5, abs=0.04)
    assert tally.accuracy == pytest.approx(0.5, abs=0.09)


def test_requests_are_held_a_few_at_a_time() -> None:
    llm = Judge(1.0, 1.0)
    list(judging(llm).judge(Comparison(USER, "?", str(n), "0") for n in range(1, 41)))
    assert llm.sizes == [32, 32, 16]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"preferred": "A"}', "first"),
        ('```json\n{"preferred": "b"}\n```', "second"),
        ('{"reason": "it is short", "preferred": "B"}', "second"),
        ('{"preferred": "unclear"}', "tie"),
        ('{"preferred": "tie"}', "tie"),
        ('{"preferred": "C"}', "unreadable"),
        ('{"preferred": null}', "unreadable"),
        ('{"preferred": "A"', "unreadable"),
        ('{"reason": "short"} {"preferred": "B"}', "second"),
        ('{"preferred": "A", "why": {"form": "short"}}', "first"),
        ('It is {"preferred": "A"} or {"preferred": "B"}. So: {"preferred": "B"}', "second"),
        ("{}", "unreadable"),
        ("A", "first"),
        ("**B**", "second"),
        ("Answer: A.", "first"),
        ("Response B", "second"),
        ("unclear", "tie"),
        ("A good response is short", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_answers_are_read(text: str, said: str) -> None:
    assert str(read_verdict(Completion(text, 3, "stop"))) == said


@given(st.text())
def test_any_answer_is_read_somehow(text: str) -> None:
    assert str(read_verdict(Completion(text, 3, "stop"))) in ("first", "second", "tie", "unreadable")


def test_what_a_prompt_does_not_show_bears_on_nothing_in_it() -> None:
    judge = PairwiseJudge(Judge(1.0, 1.0), lambda _user, question, a, b: f"{question}|{a}|{b}")
    one, other = (
        judge.request(Comparison(User("u", text), "?", "1", "2")) for text in ("Likes it short.", "Likes it long.")
    )
    assert one == other
    assert texts_of(one.messages[0].content) == {"question": "?", "first": "1", "second": "2"}
    shown = judging(Judge(1.0, 1.0))
    assert shown.request(Comparison(User("u", "One."), "?", "1", "2")) != shown.request(
        Comparison(User("u", "Other."), "?", "1", "2")
    )


def test_a_prompt_may_show_texts_in_a_form_of_its_own() -> None:
    judge = PairwiseJudge(Judge(1.0, 1.0), lambda user, question, a, b: json.dumps([user.description, a, b]))
    asked = judge.request(Comparison(USER, "?", 'a "word"', "line\nbreak")).messages[0].content
    assert '\\"word\\"' in asked and "line\\nbreak" in asked and USER.description in asked


@pytest.mark.parametrize("failure", ["refused", "reasoning", "failed"])
def test_a_request_without_an_answer_says_why(failure: Failure) -> None:
    verdict = read_verdict(Completion("", 0, failure))
    assert (verdict.preferred, verdict.failure) == ("tie", failure)


WORDS: list[Preferred] = ["first", "second", "tie"]
KINDS: list[Failure] = ["failed", "refused", "reasoning", "unreadable"]
VERDICTS = st.one_of(st.sampled_from(WORDS).map(Verdict), st.sampled_from(KINDS).map(lambda kind: Verdict("tie", kind)))


@given(VERDICTS, VERDICTS)
def test_a_pair_is_decided_where_both_orders_name_the_same_response(one: Verdict, other: Verdict) -> None:
    judgement, turned = Judgement((one, other)), Judgement((other, one))
    assert turned.preferred == MIRRORED[judgement.preferred]
    assert (turned.reason, turned.consistent) == (judgement.reason, judgement.consistent)
    assert (judgement.preferred == "tie") == bool(judgement.reason)
    assert not (judgement.failure and judgement.consistent)
    if judgement.preferred != "tie":
        assert judgement == Judgement.agreed(judgement.preferred)


def test_an_unreadable_order_leaves_the_pair_undecided() -> None:
    class Half(Judge):
        def _answer(self, request: CompletionRequest) -> str:
            return '{"preferred": "A"}' if texts_of(request.messages[0].content)["second"] == "3" else "hm"

    [judgement] = judging(Half(1, 1)).judge([Comparison(USER, "?", "7", "3")])
    assert (judgement.preferred, judgement.reason) == ("tie", "unreadable")
    assert [verdict.detail for verdict in judgement.orders] == ["", "hm"]
    tally = OrderTally()
    tally.add(judgement)
    assert (tally.read, tally.undecided) == (0, {"unreadable": 1})
