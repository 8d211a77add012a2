from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ConfigError, DataError
from fspo.judging.judge import AttributeJudge, Judge, scales_of
from fspo.judging.verdicts import MIRRORED
from fspo.preferences.types import User

TEXTS = [
    "A wonderful film!",
    "A terrible film. It is slow and it is far too long for what it wants to say.",
    "- I liked the film.\n- The cast is good. 🎬",
    "The book is fine.",
]
NAMES = ("sentiment", "length", "bullets", "emoji")
JUDGE = AttributeJudge.fit(TEXTS, NAMES, margin=0.3)
text = st.sampled_from(TEXTS)
traits = st.dictionaries(st.sampled_from(NAMES), st.floats(-1, 1, allow_nan=False), min_size=1)


def test_who_likes_praise_prefers_praise() -> None:
    judge: Judge = JUDGE
    assert judge.compare(User("a", traits={"sentiment": 1.0}), "?", TEXTS[0], TEXTS[1]) == "first"
    assert judge.compare(User("b", traits={"sentiment": -1.0}), "?", TEXTS[0], TEXTS[1]) == "second"


def test_the_utility_is_the_weighted_sum_of_clipped_measures() -> None:
    judge = AttributeJudge({"length": (4.0, 2.0), "emoji": (0.0, 1.0)})
    user = User("a", traits={"length": 0.6, "emoji": -0.8})
    assert math.isclose(judge.utility(user, "It is a good film 🎬"), 0.6 * 0.5 - 0.8 * 1.0)
    assert math.isclose(judge.utility(user, "word " * 100), 0.6 * 2.0)


@given(traits, text, text)
def test_the_order_does_not_matter(weights: dict[str, float], a: str, b: str) -> None:
    user = User("a", traits=weights)
    assert JUDGE.compare(user, "?", b, a) == MIRRORED[JUDGE.compare(user, "?", a, b)]


@given(traits, text, text)
def test_the_opposite_user_judges_the_opposite(weights: dict[str, float], a: str, b: str) -> None:
    other = User("b", traits={name: -weight for name, weight in weights.items()})
    assert JUDGE.compare(other, "?", b, a) == JUDGE.compare(User("a", traits=weights), "?", a, b)


def test_a_near_tie_is_a_tie() -> None:
    user = User("a", traits={"sentiment": 1.0})
    assert JUDGE.compare(user, "?", TEXTS[0], TEXTS[0]) == "tie"
    wide = AttributeJudge(JUDGE.scales, margin=10)
    assert wide.compare(user, "?", TEXTS[0], TEXTS[1]) == "tie"
    assert AttributeJudge(JUDGE.scales, margin=0).compare(user, "?", TEXTS[0], TEXTS[0]) == "tie"


def test_a_judge_survives_the_disk(tmp_path: Path) -> None:
    JUDGE.save(tmp_path / "judge.json")
    assert AttributeJudge.load(tmp_path / "judge.json") == JUDGE


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text('{"scales": {"length": 3}}')
    with pytest.raises(DataError, match=r"judge\.json"):
        AttributeJudge.load(tmp_path / "judge.json")


def test_what_nobody_can_differ_in_is_refused() -> None:
    with pytest.raises(DataError, match="'emoji' is the same"):
        scales_of(["One film.", "Another film."], ["emoji"])
    with pytest.raises(DataError, match="no texts"):
        scales_of([], ["emoji"])


def test_impossible_judges_are_refused() -> None:
    with pytest.raises(ConfigError, match="standard deviation"):
        AttributeJudge({"length": (1.0, 0.0)})
    with pytest.raises(ConfigError, match="margin"):
        AttributeJudge({"length": (1.0, 1.0)}, margin=-1)
    with pytest.raises(ConfigError, match="no attribute"):
        AttributeJudge({"loudness": (1.0, 1.0)})


def test_a_user_who_minds_something_else_is_refused() -> None:
    with pytest.raises(DataError, match="'formality'"):
        JUDGE.utility(User("a", traits={"formality": 1.0}), "A film.")
