"""Judgements are asked for once, many at a time, and stored whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError, ModelError
from fspo.evaluation.judges.judgement_store import counts, judged, shortcomings
from fspo.files import read_jsonl
from fspo.judging.by_topic import TopicJudge
from fspo.judging.judge import AttributeJudge
from fspo.judging.pairwise import PairwiseJudge
from fspo.judging.verdicts import Comparison, Failure, Judgement, Preferred
from fspo.llm.types import Completion, CompletionRequest
from fspo.preferences.types import User
from tests.judging.helpers import said

ANN = User("ann", "Likes it short.", {"length": -1.0})


Word = Preferred | Failure


def pair(
    number: int = 0, user: User = ANN, prompt: str = "?", answer: str = "one", base: str = "two"
) -> tuple[str, Comparison]:
    return f"{user.id}/0/{number}", Comparison(user, prompt, answer, base)


class Streamed:
    """Judges many at once by its script, and fails where that ends."""

    def __init__(self, *words: tuple[Word, Word], name: str = "streamed") -> None:
        self.words, self.identity, self.calls = list(words), name, 0

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        pytest.fail("asked one by one")

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgement]:
        self.calls += 1
        for _ in comparisons:
            if not self.words:
                raise ModelError("The judge is down; run the same command again: what was finished is kept.")
            yield said(*self.words.pop(0))


def test_many_pairs_are_asked_in_one_go_and_counted_for_what_they_are(tmp_path: Path) -> None:
    judge = Streamed(
        ("first", "second"), ("first", "first"), ("refused", "second"), ("first", "unreadable"), ("tie", "tie"),
        ("first", "tie"),
    )  # fmt: skip
    found = judged(judge, [pair(n, prompt=f"{n}?") for n in range(6)], path=tmp_path / "j.jsonl")
    assert judge.calls == 1
    assert [(j.preferred, j.consistent, j.failure) for j in found] == [
        ("first", True, None),
        ("tie", False, None),
        ("tie", False, "refused"),
        ("tie", False, "unreadable"),
        ("tie", True, None),
        ("tie", False, None),
    ]


def test_a_judge_that_is_down_in_the_middle_leaves_what_it_said(tmp_path: Path) -> None:
    path, pairs = tmp_path / "j.jsonl", [pair(n, prompt=f"{n}?") for n in range(5)]
    with pytest.raises(ModelError, match="run the same command again"):
        judged(Streamed(("first", "second"), ("second", "first")), pairs, path=path)
    assert len(read_jsonl(path)) == 2
    rest = Streamed(("first", "second"), ("first", "second"), ("first", "second"))
    assert [j.preferred for j in judged(rest, pairs, path=path)] == ["first", "second", "first", "first", "first"]
    assert judged(Streamed(), pairs, path=path) == judged(Streamed(), pairs, path=path)


def test_the_key_is_judge_user_prompt_and_both_outputs(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    judged(Streamed(("first", "second")), [pair()], path=path)
    others = [
        pair(user=User("ben", ANN.description, ANN.traits)),
        pair(user=User("ann", "Likes it long.", ANN.traits)),
        pair(user=User("ann", ANN.description, {"length": 1.0})),
        pair(prompt="!"),
        pair(answer="uno"),
        pair(base="due"),
        pair(answer="two", base="one"),
    ]
    for other in others:
        with pytest.raises(ModelError):
            judged(Streamed(), [other], path=path)
    with pytest.raises(ModelError):
        judged(Streamed(name="another"), [pair()], path=path)
    assert judged(Streamed(), [pair(number=7)], path=path) == [said("first", "second")]  # the same under another item


class Mine:
    """Likes the longer or the shorter one, which its name does not say."""

    name = "mine"

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        return "first" if self.sign * len(first) > self.sign * len(second) else "second"


class Identified(Mine):
    @property
    def identity(self) -> str:
        return f"mine {self.sign}"


class Shouting(Identified):
    def compare(self, user: User, prompt: str, first: str, second: str) -> Any:
        return "A"


def test_a_judge_that_says_neither_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="The judge Shouting answered 'A'; its compare must return 'first'"):
        judged(Shouting(1), [pair()], path=tmp_path / "j.jsonl")


def test_a_judge_that_cannot_be_read_at_all_is_not_asked_on(tmp_path: Path) -> None:
    mumbles: tuple[Word, Word] = ("unreadable", "unreadable")
    pairs = [pair(number, prompt=f"{number}?") for number in range(300)]
    judge = Streamed(*[mumbles] * 300)
    with pytest.raises(DataError, match=r"first 100 pairs can be read.*change its prompt, use another model"):
        judged(judge, pairs, path=tmp_path / "j.jsonl")
    assert len(judge.words) == 200
    with pytest.raises(DataError):
        judged(judge, pairs, path=tmp_path / "j.jsonl")
    assert len(judge.words) > 190  # nor is it asked anew for the like of what it said before
    few = judged(Streamed(*[mumbles] * 20), pairs[:20], path=tmp_path / "few.jsonl")
    assert {row.failure for row in few} == {"unreadable"}  # kept and counted, and no reason to stop
    some = Streamed(("first", "second"), *[mumbles] * 299)
    assert sum(bool(row.failure) for row in judged(some, pairs, path=tmp_path / "other.jsonl")) == 299


class Reasoning:
    """Thinks until the limit is used up, or answers."""

    name = "reasoner"

    def __init__(self, answer: str = "") -> None:
        self.answer, self.asked = answer, 0

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.asked += len(requests)
        return [Completion(self.answer, 48, "stop" if self.answer else "reasoning") for _ in requests]


def _by(model: Reasoning) -> PairwiseJudge:
    return PairwiseJudge(model, lambda user, question, a, b: f"{user.description} {question} {a} {b}", setting="here")


def test_a_judge_that_only_reasons_is_told_by_its_limit_and_asked_again(tmp_path: Path) -> None:
    path, pairs = tmp_path / "j.jsonl", [pair(number, prompt=f"{number}?") for number in range(60)]
    found = judged(_by(Reasoning()), pairs, path=path)
    assert {(row.failure, row.detail("reasoning")) for row in found} == {("reasoning", "here, which is 48")}
    assert read_jsonl(path) == []
    (text,) = shortcomings("It", found)
    assert "only reasoning in 60 of 60 comparisons" in text and "here, which is 48. Raise it" in text
    model = Reasoning("unclear")
    assert {row.failure for row in judged(_by(model), pairs, path=path)} == {None}
    assert model.asked == 120 and len(read_jsonl(path)) == 60


def test_a_judge_that_does_not_say_which_it_is_is_refused(tmp_path: Path) -> None:
    path, pairs = tmp_path / "j.jsonl", [pair(answer="longer")]
    with pytest.raises(ConfigError, match=r"test_judgement_store.Mine does not say.*`identity`"):
        judged(Mine(1), pairs, path=path)
    assert [judged(Identified(sign), pairs, path=path)[0].preferred for sign in (1, -1, 1)] == [
        "first",
        "second",
        "first",
    ]
    assert len(read_jsonl(path)) == 2


def test_equal_pairs_are_asked_once(tmp_path: Path) -> None:
    judge = Streamed(("first", "second"))
    assert len(judged(judge, [pair(0), pair(1)], path=tmp_path / "j.jsonl")) == 2


def test_another_prompt_or_topic_is_another_judge(tmp_path: Path) -> None:
    class Letter:
        name = "model"

        def __init__(self, letter: str) -> None:
            self.letter = letter

        def complete(self, requests: Iterable[object]) -> list[Completion]:
            return [Completion(self.letter, 1, "stop") for _ in requests]

    path = tmp_path / "j.jsonl"
    for number, wording in enumerate(("Which?", "Which, honestly?")):
        judge = PairwiseJudge(Letter("A"), lambda user, question, a, b, words=wording: words + a + b)  # type: ignore[misc]
        assert not judged(judge, [pair()], path=path)[0].consistent
        assert len(read_jsonl(path)) == number + 1
    attributes = AttributeJudge({"length": (3.0, 1.0)})
    for number, topics in enumerate(({}, {"?": "film"}, {"?": "film", "!": "music"})):
        judged(TopicJudge(attributes, topics), [pair()], path=path)
        assert len(read_jsonl(path)) == (3, 4, 4)[number]


def test_words_of_topics_are_part_of_a_measured_judge(tmp_path: Path) -> None:
    path, user = tmp_path / "j.jsonl", User("ann", "", {"topic.sport": 1.0})
    for words, preferred in ((("one",), "first"), (("two",), "second")):
        judge = AttributeJudge({"topic.sport": (0.0, 1.0)}, vocabularies={"sport": words})
        assert judged(judge, [pair(user=user)], path=path)[0].preferred == preferred


class Down(Reasoning):
    """Answers the first request, and fails on all others."""

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        answers = super().complete(requests)
        return [answers[0], *(Completion("", 0, "failed") for _ in answers[1:])]


def test_a_failed_request_is_no_unreadable_answer_and_is_asked_again(tmp_path: Path) -> None:
    path, pairs = tmp_path / "j.jsonl", [pair(number, prompt=f"{number}?") for number in range(4)]
    found = judged(_by(Down("A")), pairs, path=path)
    assert [row.failure for row in found] == ["failed"] * 4
    assert counts(found)["failed"] == 4 and counts(found)["unreadable"] == 0
    (text,) = shortcomings("It", found)
    assert "4 of 4 comparisons" in text and "asks again" in text
    assert read_jsonl(path) == []
    model = Reasoning("A")
    assert {row.failure for row in judged(_by(model), pairs, path=path)} == {None} and model.asked == 8


def test_a_line_names_its_item_and_says_what_an_unreadable_answer_was(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    found = judged(_by(Reasoning("Both are fine.")), [pair(3)], path=path)
    (line,) = read_jsonl(path)
    assert line["item"] == "ann/0/3"
    assert [order["detail"] for order in line["orders"]] == ["Both are fine."] * 2
    assert judged(_by(Reasoning()), [pair(3)], path=path) == found
