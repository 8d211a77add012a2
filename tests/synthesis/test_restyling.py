from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.judging.attributes import ATTRIBUTES, sentiment, words
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Question, load_domain
from fspo.synthesis.restyling import RESTYLED, Restyled, restyle

CONFIG = SynthesisConfig(domain="reviews-restyled")
STYLES = load_domain("reviews-restyled").styles
assert STYLES is not None


def about(kind: str, title: str) -> Question:
    return Question(title, f"Is the {kind} {title} any good?", kind, title, True, kind, title)


DUNE = about("book", "Dune")
GOOD = (
    "Dune is a wonderful book with a clever plot.",
    "I think the writing is superb and the world is beautiful.",
    "It is a joy to read from the first page to the last.",
)
BAD = (
    "The Kite Runner is a dull book.",
    "The plot is weak, and the ending is awful, which ruins the whole story for me.",
)


def styled(parts: tuple[str, ...], style: dict[str, int], side: int = 0, seed: int = 0) -> Restyled | None:
    assert STYLES is not None
    return restyle(parts, style, side, DUNE, STYLES, CONFIG, random.Random(seed))


@given(st.fixed_dictionaries({name: st.sampled_from((1, -1)) for name in RESTYLED}), st.integers(0, 50))
def test_the_style_that_is_asked_for_is_measured(style: dict[str, int], seed: int) -> None:
    result = styled(GOOD, style, 1, seed)
    if result is None:  # where there is no impersonal sentence of the right length
        return
    measured = {name: ATTRIBUTES[name].measure(result.text) for name in (*RESTYLED, "sentiment")}
    assert (measured["bullets"] > 0) == (style["bullets"] > 0)
    assert (measured["emoji"] > 0) == (style["emoji"] > 0)
    assert (measured["exclamation"] > 0) == (style["exclamation"] > 0)
    assert (measured["first_person"] > 0) == (style["first_person"] > 0)
    assert measured["sentiment"] >= CONFIG.restyling.clear_sentiment
    if style["length"] > 0:
        assert CONFIG.restyling.long_words <= measured["length"]
    else:
        assert measured["length"] <= CONFIG.restyling.short_words + 8


@given(st.fixed_dictionaries({name: st.sampled_from((1, -1)) for name in RESTYLED}), st.integers(0, 20))
def test_same_seed_same_text(style: dict[str, int], seed: int) -> None:
    assert styled(GOOD, style, 1, seed) == styled(GOOD, style, 1, seed)


def test_without_a_style_the_text_stays() -> None:
    assert styled(GOOD, {}) == Restyled(" ".join(GOOD), (), 3)


def test_each_rule_leaves_a_mark() -> None:
    result = styled(GOOD, {"bullets": 1, "emoji": 1, "exclamation": 1, "first_person": 1, "length": -1}, 1)
    assert result is not None
    assert [step.partition(":")[0] for step in result.steps] in (
        ["length", "first_person", "exclamation", "emoji", "bullets"],
        ["length", "exclamation", "emoji", "bullets"],  # the sentence drawn spoke of the writer already
    )


def test_a_text_of_the_wrong_sentiment_is_not_used() -> None:
    assert styled(BAD, {"length": -1}, 1) is None
    assert styled(BAD, {"length": -1}, -1) is not None


def test_long_needs_enough_words() -> None:
    assert styled(BAD[:1], {"length": 1}) is None


def test_impersonal_takes_openers_off_and_leaves_the_rest_out() -> None:
    result = styled(GOOD, {"first_person": -1})
    assert result is not None
    assert "The writing is superb" in result.text
    assert styled(("My wife and I loved it.",), {"first_person": -1}) is None


def test_titles_keep_their_capital_after_an_opener() -> None:
    kite = about("book", "The Kite Runner")
    for seed in range(10):
        result = restyle(BAD[:1], {"first_person": 1}, 0, kite, STYLES, CONFIG, random.Random(seed))
        assert result is not None
        assert "The Kite Runner" in result.text
        assert ATTRIBUTES["first_person"].measure(result.text) >= 1


@pytest.mark.parametrize(("wanted", "expected"), [(1, "It is"), (-1, "It's")])
def test_formality_writes_out_or_contracts(wanted: int, expected: str) -> None:
    result = styled(("Dune is good.", "It is long." if wanted < 0 else "It's long."), {"formality": wanted})
    assert result is not None
    assert expected in result.text


def test_emoji_fit_the_sentiment() -> None:
    for seed in range(20):
        result = styled(BAD, {"emoji": 1}, -1, seed)
        assert result is not None
        assert not set(STYLES.emoji["positive"]) & set(result.text.split())
    assert sentiment(GOOD[0]) > 0
    assert len(words(GOOD[0])) > 5


def test_styles_that_lack_an_opener_or_the_emoji_of_a_kind_are_used_as_far_as_they_go() -> None:
    assert STYLES is not None
    own = STYLES.model_copy(update={"first_person": ["I think "], "emoji": {**STYLES.emoji, "book": []}})
    fragment = ("What a wonderful book with a clever plot.",)
    for seed in range(20):
        rng = random.Random(seed)
        assert restyle(fragment, {"first_person": 1}, 1, DUNE, own, CONFIG, rng) is None
        assert restyle(GOOD, {"emoji": 1}, 1, DUNE, own, CONFIG, rng) is not None
