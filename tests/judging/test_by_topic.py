"""Weights that hold on a topic alone."""

from __future__ import annotations

import pytest

from fspo.judging.by_topic import TopicJudge
from fspo.judging.judge import AttributeJudge
from fspo.preferences.types import User

TEXTS = ["One.", "One two three four.", "One two three four five six seven eight nine."]
JUDGE = TopicJudge(AttributeJudge.fit(TEXTS, ["length"], 0.4), {"Why?": "physics", "How?": "cooking"})
EXPERT = User("e", traits={"length@physics": 1.0, "length": -1.0})


@pytest.mark.parametrize(("prompt", "liked"), [("Why?", 2), ("How?", 0), ("Asked by nobody?", 0)])
def test_the_weights_of_a_topic_hold_on_it_and_the_general_ones_elsewhere(prompt: str, liked: int) -> None:
    utilities = [JUDGE.utility(EXPERT, text, prompt) for text in TEXTS]
    assert utilities.index(max(utilities)) == liked
    assert JUDGE.compare(EXPERT, prompt, TEXTS[liked], TEXTS[1]) == "first"


def test_utilities_and_verdicts_agree() -> None:
    for prompt in ("Why?", "How?"):
        for first in TEXTS:
            for second in TEXTS:
                difference = JUDGE.utility(EXPERT, first, prompt) - JUDGE.utility(EXPERT, second, prompt)
                word = "tie" if abs(difference) < JUDGE.margin else "first" if difference > 0 else "second"
                assert JUDGE.compare(EXPERT, prompt, first, second) == word


def test_a_user_with_other_weights_of_the_same_name_is_judged_by_these() -> None:
    other = User("e", traits={"length@physics": -1.0, "length": 1.0})

    for text in (TEXTS[0], TEXTS[2]):
        assert JUDGE.utility(EXPERT, text, "Why?") == -JUDGE.utility(other, text, "Why?") != 0
