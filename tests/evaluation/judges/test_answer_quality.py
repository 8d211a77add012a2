"""Quality: the measures tell language from gibberish without knowing any user."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fspo.evaluation.config import Floors
from fspo.evaluation.judges.answer_quality import (
    Closeness,
    Quality,
    broken_floors,
    compression_share,
    content_words,
    distinct_share,
    measure_quality,
    overlap,
)

QUESTION = "What did you think of the film Spirited Away?"
ANSWER = "Spirited Away is a dreamlike film: every room of the bathhouse hides a small marvel."
LOOP = "great great great great great great great great great great"
GOOD = Quality(log_prob=-2.0, distinct=1.0, compression=0.9, overlap=0.5, closeness=0.4, words=15)


def test_repetition_is_seen() -> None:
    assert distinct_share(ANSWER) == 1.0
    assert distinct_share(LOOP) == pytest.approx(1 / 9)
    assert compression_share(LOOP * 3) < 0.3 < compression_share(ANSWER)


def test_an_answer_to_the_question_is_closer_than_one_to_another() -> None:
    other = "The bread was stale and the soup came cold."
    closeness = Closeness([QUESTION, ANSWER, other])
    assert closeness.cosine(QUESTION, ANSWER) > closeness.cosine(QUESTION, other) == 0.0
    assert overlap(QUESTION, ANSWER) == pytest.approx(3 / 4)
    assert overlap(QUESTION, other) == 0.0


def test_rare_words_count_for_more_than_common_ones() -> None:
    closeness = Closeness(["film one", "film two", "film three", "film totoro"])
    assert closeness.cosine("film totoro", "totoro") > closeness.cosine("film totoro", "film")


def test_function_words_emoji_and_marks_are_no_content() -> None:
    assert content_words("- I LOVED it! 🎬 It\u2019s the best_film.") == ["loved", "best", "film"]


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, ()),
        ({"log_prob": -9.0}, ("log_prob",)),
        ({"distinct": 0.1, "words": 1}, ("distinct", "words")),
    ],
)
def test_floors_name_what_is_below_them(changes: dict[str, float], broken: tuple[str, ...]) -> None:
    assert broken_floors(Quality(**{**GOOD.__dict__, **changes}), Floors()) == broken


def test_a_misspelt_floor_is_refused() -> None:
    with pytest.raises(ValidationError):
        Floors.model_validate({"logprob": -3})


def test_an_empty_answer_is_measured_and_falls_below() -> None:
    quality = measure_quality(QUESTION, "", -1.0, Closeness([QUESTION]))
    assert (quality.words, quality.overlap, quality.closeness) == (0, 0.0, 0.0)
    assert broken_floors(quality, Floors()) == ("words",)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_measures_stay_within_their_range(first: str, second: str) -> None:
    closeness = Closeness([first, second])
    assert 0 <= distinct_share(first) <= 1
    assert 0 < compression_share(first) <= 1
    assert 0 <= overlap(first, second) <= 1
    assert 0 <= closeness.cosine(first, second) <= 1
    assert closeness.cosine(first, second) == pytest.approx(closeness.cosine(second, first))
