"""What a judge said is asked once, many pairs at a time, and kept whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from fspo.errors import ConfigError, DataError, ModelError
from fspo.evaluation.judges.judgement_store import Annotation, Pair, annotate, silence
from fspo.files import read_jsonl
from fspo.judging.by_topic import TopicJudge
from fspo.judging.judge import AttributeJudge
from fspo.judging.pairwise import Choice, Comparison, Judgement, PairwiseJudge, judgement_of
from fspo.llm.types import Completion, CompletionRequest
from fspo.preferences.types import User

ANN = User("ann", "Likes it short.", {"length": -1.0})


def pair(number: int = 0, user: User = ANN, prompt: str = "?", answer: str = "one", base: str = "two") -> Pair:
    return Pair(f"{user.id}/0/{number}", user, prompt, answer, base)


class Streamed:
    """Judges many at once by its script, and fails where that ends."""

    def __init__(self, *choices: tuple[Choice, Choice], name: str = "streamed") -> None:
        self.choices, self.identity, self.calls = list(choices), name, 0

    def compare(self, user: User, prompt: str, a: str, b: str) -> Literal["a", "b", "tie"]:
        pytest.fail("asked one by one")

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgement]:
        self.calls += 1
        for _ in comparisons:
            if not self.choices:
                raise ModelError("The judge is down; run the same command again: what was finished is kept.")
            yield judgement_of(*self.choices.pop(0))


def test_many_pairs_are_asked_in_one_go_and_counted_for_what_they_are(tmp_path: Path) -> None:
    judge = Streamed(
        ("first", "second"), ("first", "first"), ("refused", "second"), ("first", "unreadable"), ("unclear", "unclear"),
        ("first", "unclear"),
    )  # fmt: skip
    found = annotate(judge, [pair(n, prompt=f"{n}?") for n in range(6)], path=tmp_path / "j.jsonl")
    assert judge.calls == 1
    assert [(a.judged, a.consistent, a.reject) for a in found] == [
        ("win", True, ""),
        ("tie", False, ""),
        ("tie", False, "refused"),
        ("tie", False, "unreadable"),
        ("tie", True, ""),
        ("tie", False, ""),
    ]


def test_a_judge_that_is_down_in_the_middle_leaves_what_it_said(tmp_path: Path) -> None:
    path, pairs = tmp_path / "j.jsonl", [pair(n, prompt=f"{n}?") for n in range(5)]
    with pytest.raises(ModelError, match="run the same command again"):
        annotate(Streamed(("first", "second"), ("second", "first")), pairs, path=path)
    assert len(read_jsonl(path)) == 2
    rest = Streamed(("first", "second"), ("first", "second"), ("first", "second"))
    assert [a.judged for a in annotate(rest, pairs, path=path)] == ["win", "loss", "win", "win", "win"]
    assert annotate(Streamed(), pairs, path=path) == annotate(Streamed(), pairs, path=path)


def test_the_key_is_judge_user_prompt_and_both_outputs(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    annotate(Streamed(("first", "second")), [pair()], path=path)
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
            annotate(Streamed(), [other], path=path)
    with pytest.raises(ModelError):
        annotate(Streamed(name="another"), [pair()], path=path)
    assert annotate(Streamed(), [pair(number=7)], path=path) == [Annotation("win", True)]  # the same under another item


class Mine:
    """Likes the longer or the shorter one, which its name does not say."""

    name = "mine"

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def compare(self, user: User, prompt: str, a: str, b: str) -> Literal["a", "b", "tie"]:
        return "a" if self.sign * len(a) > self.sign * len(b) else "b"


class Identified(Mine):
    @property
    def identity(self) -> str:
        return f"mine {self.sign}"


class Shouting(Identified):
    def compare(self, user: User, prompt: str, a: str, b: str) -> Any:
        return "A"


def test_a_judge_that_says_neither_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"The judge Shouting answered 'A'; its compare must return 'a', 'b' or 'tie'"):
        annotate(Shouting(1), [pair()], path=tmp_path / "j.jsonl")


def test_a_judge_that_cannot_be_read_at_all_is_not_asked_on(tmp_path: Path) -> None:
    mumbles: tuple[Choice, Choice] = ("unreadable", "unreadable")
    pairs = [pair(number, prompt=f"{number}?") for number in range(300)]
    judge = Streamed(*[mumbles] * 300)
    with pytest.raises(DataError, match=r"first 100 pairs can be read.*change its prompt, use another model"):
        annotate(judge, pairs, path=tmp_path / "j.jsonl")
    assert len(judge.choices) == 200
    with pytest.raises(DataError):
        annotate(judge, pairs, path=tmp_path / "j.jsonl")
    assert len(judge.choices) > 190  # nor is it asked anew for the like of what it said before
    few = annotate(Streamed(*[mumbles] * 20), pairs[:20], path=tmp_path / "few.jsonl")
    assert {row.reject for row in few} == {"unreadable"}  # kept and counted, and no reason to stop
    some = Streamed(("first", "second"), *[mumbles] * 299)
    assert sum(bool(row.reject) for row in annotate(some, pairs, path=tmp_path / "other.jsonl")) == 299


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
    found = annotate(_by(Reasoning()), pairs, path=path)
    assert {row.reject for row in found} == {"reasoning"} and {row.used_up for row in found} == {"here, which is 48"}
    assert read_jsonl(path) == []
    (said,) = silence("It", unreadable=0, refused=0, reasoning=60, ties=0, decided=0, used_up=found[0].used_up)
    assert "only reasoning in 60 of 60 comparisons" in said and "here, which is 48. Raise it" in said
    model = Reasoning("unclear")
    assert {row.reject for row in annotate(_by(model), pairs, path=path)} == {""}
    assert model.asked == 120 and len(read_jsonl(path)) == 60


def test_a_judge_that_does_not_say_which_it_is_is_refused(tmp_path: Path) -> None:
    path, pairs = tmp_path / "j.jsonl", [pair(answer="longer")]
    with pytest.raises(ConfigError, match=r"test_annotations.Mine does not say.*`identity`"):
        annotate(Mine(1), pairs, path=path)
    assert [annotate(Identified(sign), pairs, path=path)[0].judged for sign in (1, -1, 1)] == ["win", "loss", "win"]
    assert len(read_jsonl(path)) == 2


def test_equal_pairs_are_asked_once(tmp_path: Path) -> None:
    judge = Streamed(("first", "second"))
    assert len(annotate(judge, [pair(0), pair(1)], path=tmp_path / "j.jsonl")) == 2


def test_another_prompt_or_topic_is_another_judge(tmp_path: Path) -> None:
    class Letter:
        name = "model"

        def __init__(self, letter: str) -> None:
            self.letter = letter

        def complete(self, requests: Iterable[object]) -> list[Completion]:
            return [Completion(self.letter, 1, "stop") for _ in requests]

    path = tmp_path / "j.jsonl"
    for number, wording in enumerate(("Which?", "Which, honestly?")):
        judge = PairwiseJudge(Letter("A"), lambda user, question, a, b, said=wording: said + a + b)  # type: ignore[misc]
        assert not annotate(judge, [pair()], path=path)[0].consistent
        assert len(read_jsonl(path)) == number + 1
    attributes = AttributeJudge({"length": (3.0, 1.0)})
    for number, topics in enumerate(({}, {"?": "film"}, {"?": "film", "!": "music"})):
        annotate(TopicJudge(attributes, topics), [pair()], path=path)
        assert len(read_jsonl(path)) == (3, 4, 4)[number]


def test_words_of_topics_are_part_of_a_measured_judge(tmp_path: Path) -> None:
    path, user = tmp_path / "j.jsonl", User("ann", "", {"topic.sport": 1.0})
    for words, judged in ((("one",), "win"), (("two",), "loss")):
        judge = AttributeJudge({"topic.sport": (0.0, 1.0)}, vocabularies={"sport": words})
        assert annotate(judge, [pair(user=user)], path=path)[0].judged == judged
