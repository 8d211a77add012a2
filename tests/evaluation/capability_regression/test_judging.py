"""Judges of open instructions: what they are asked, what counts, what is refused, and that nothing is asked twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fspo.errors import ModelError
from fspo.evaluation.capability_regression.answers import TaxAnswer
from fspo.evaluation.capability_regression.judging import NOBODY, TaxJudges, tax_judge
from fspo.evaluation.config import JudgeConfig, TaxConfig
from fspo.files import read_jsonl
from fspo.judging.verdicts import Comparison, Failure, Judgement, Preferred
from fspo.judging.weighted import WeightedJudge
from fspo.llm.quoting import texts_of
from fspo.preferences.types import User
from tests.judging.helpers import said
from tests.synthesis.helpers import ScriptedModel

ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
BASE = {"tides": "The moon.", "bread": "Flour, water."}


class Scripted:
    """Gives its judgements, pair after pair, and is down after that."""

    identity = "scripted"

    def __init__(self, *words: tuple[Preferred | Failure, Preferred | Failure]) -> None:
        self.judgements = [said(*pair) for pair in words]
        self.asked: list[Comparison] = []

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        raise NotImplementedError

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgement]:
        for comparison in comparisons:
            if not self.judgements:
                raise ModelError("The judge is down.")
            self.asked.append(comparison)
            yield self.judgements.pop(0)


def answer(item: str, text: str, user: str = "ann") -> TaxAnswer:
    return TaxAnswer("personal" if user else "bare", item, user, f"About {item}?", text)


def test_wins_ties_and_losses_count_and_what_is_not_decided_does_not(tmp_path: Path) -> None:
    judge = Scripted(("first", "second"), ("second", "first"), ("first", "first"), ("unreadable", "second"))
    judges = TaxJudges({"far": judge}, tmp_path)
    rows = [
        answer("tides", "The moon and the sun."),
        answer("bread", "No."),
        answer("tides", "It tosses.", "ben"),
        answer("bread", "Mumbled.", "ben"),
        answer("tides", "The moon.", "cem"),  # the base model's own words
    ]
    found = judges.preferred("fspo", rows, BASE)["far"]
    assert found == {
        ("personal", ("ann", "tides")): 1.0,
        ("personal", ("ann", "bread")): 0.0,
        ("personal", ("ben", "tides")): 0.5,
        ("personal", ("cem", "tides")): 0.5,
    }
    counted = {"items": 5, "wins": 1, "ties": 2, "losses": 1, "unreadable": 1, "inconsistent": 1}
    rest = {"failed": 0, "refused": 0, "reasoning": 0, "without_log_probs": 0}
    assert judges.record() == {"far": {"fspo": counted | rest}}
    assert judges.notes() == [
        "The judge 'far' of the tax named neither answer in 1 of 5 comparisons and refused 0; they are left out of its "
        "figures."
    ]
    assert len(judge.asked) == 4 and {comparison.user for comparison in judge.asked} == {NOBODY}


def test_a_judge_that_goes_down_goes_on_where_it_was(tmp_path: Path) -> None:
    rows = [answer("tides", "One."), answer("bread", "Two."), answer("bread", "Three.", "")]
    with pytest.raises(ModelError):
        TaxJudges({"far": Scripted(("first", "second"))}, tmp_path).preferred("fspo", rows, BASE)
    assert len(read_jsonl(tmp_path / "fspo" / "tax-judgements-far.jsonl")) == 1
    judge = Scripted(("second", "first"), ("second", "first"))
    found = TaxJudges({"far": judge}, tmp_path).preferred("fspo", rows, BASE)["far"]
    assert list(found.values()) == [1.0, 0.0, 0.0]
    assert ("bare", ("", "bread")) in found
    assert TaxJudges({"far": Scripted()}, tmp_path).preferred("fspo", rows, BASE)["far"] == found


def test_the_judge_is_told_of_no_user_and_braces_are_no_templates() -> None:
    judge = tax_judge(JudgeConfig.model_validate({"name": "far", "endpoint": ENDPOINT}), ScriptedModel())
    shown = judge.request(Comparison(NOBODY, "Why {first}?", "one {second}", "two")).messages[0].content
    assert texts_of(shown) == {"question": "Why {first}?", "first": "one {second}", "second": "two"}
    assert "Request: <question-" in shown and "Response A:\n<first-" in shown
    assert '{"preferred": "A"}' in shown and "user" not in shown.lower()
    assert judge.compare(NOBODY, "?", "A text that is longer by far.", "Short.") == "first"
    weighing = JudgeConfig.model_validate({"name": "far", "endpoint": ENDPOINT, "weighted": True})
    asked = tax_judge(weighing, ScriptedModel())
    assert isinstance(asked, WeightedJudge)
    assert "one letter only" in asked.request(Comparison(NOBODY, "?", "one", "two")).messages[0].content
    own = JudgeConfig.model_validate({"name": "far", "endpoint": ENDPOINT, "prompt": "{first} or {second}?"})
    assert texts_of(tax_judge(own, ScriptedModel()).request(Comparison(NOBODY, "?", "1", "2")).messages[0].content) == {
        "first": "1",
        "second": "2",
    }


def test_a_judge_who_never_decides_is_told(tmp_path: Path) -> None:
    contradicting: tuple[Preferred, Preferred] = ("first", "first")
    judges = TaxJudges({"far": Scripted(*[contradicting] * 7, ("tie", "tie"))}, tmp_path)
    judges.preferred("fspo", [answer("tides", f"It is {number}.") for number in range(8)], BASE)
    assert judges.notes() == ["The judge 'far' of the tax preferred neither answer in any of 8 comparisons."]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "longer", "likes": {"length": 1}}], "'longer' of the tax has no endpoint"),
        ([{"name": "a", "endpoint": ENDPOINT}] * 2, "given twice"),
        ([{"name": "a", "endpoint": ENDPOINT, "prompt": "{description} {first} {second}"}], "knows no user"),
    ],
)
def test_who_can_judge_for_nobody_is_told_at_once(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TaxConfig.model_validate({"judges": entries})
