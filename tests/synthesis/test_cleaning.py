from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.judging.attributes import sentiment, words
from fspo.synthesis.cleaning import MOST_SENTENCES, Cleaned, Rejected, clauses, clean
from fspo.synthesis.domain import load_domain

STYLES = load_domain("reviews-restyled").styles
assert STYLES is not None
TOPIC = frozenset(STYLES.topic)
TOKENS = [*re.findall(r"\S+", "Dune is a good bad book , . ! and but the I it which ; : -"), "\n"]


def cleaned(raw: str, **limits: int) -> Cleaned:
    result = clean(raw, "Dune", TOPIC, **limits)
    assert isinstance(result, Cleaned), result
    return result


def test_whole_sentences_are_kept_and_the_torn_end_is_not() -> None:
    result = cleaned("Dune is a moving book. The writing is superb. The characters feel")
    assert result.sentences == ("Dune is a moving book.", "The writing is superb.")
    assert result.cuts == ("clause",)
    assert result.sentiment > 0.5


def test_a_torn_sentence_is_kept_up_to_its_last_clause() -> None:
    result = cleaned("Dune is a slow and dull book, but the worst thing about it is that it")
    assert result.text == "Dune is a slow and dull book."


def test_form_is_taken_off() -> None:
    result = cleaned("- **Dune** is great!".replace("**", "") + " 🎬\n- The “story” is warm…")
    assert result.sentences == ("Dune is great.", "The story is warm.")


def test_what_contradicts_the_beginning_is_cut() -> None:
    result = cleaned("Dune is a terrible, boring book. It is a wonderful masterpiece.")
    assert result.text == "Dune is a terrible, boring book."
    assert "contradiction" in result.cuts


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("Dune is fine. User: what else?", "role marker or refusal"),
        ("As an AI language model, I have no opinion of Dune.", "role marker or refusal"),
        ("Dune is at https://example.org and it is good.", "markup"),
        ("Dune is 素晴らしい and very good.", "foreign characters"),
        ("My cat sat on the warm mat all day long.", "off topic"),
        ("Dune is slow and long. Dune is slow and long. Dune is slow and long.", "repetition"),
        ("Dune sold 12000 copies in 1965 for good reasons.", "figures"),
        ("Dune is fineAndgood in every single way.", "torn words"),
        ("Dune.", "too short"),
        ("", "too short"),
    ],
)
def test_what_is_no_review_is_rejected_with_its_reason(raw: str, reason: str) -> None:
    assert clean(raw, "Dune", TOPIC) == Rejected(reason)


def test_a_question_about_no_work_needs_words_of_the_topic() -> None:
    assert clean("My cat sat on the warm mat all day long.", "", TOPIC) == Rejected("off topic")
    assert isinstance(clean("The plot is warm and good all day long.", "", TOPIC), Cleaned)


def test_chat_ends_the_text() -> None:
    assert (
        cleaned("Dune is a lovely book to read. Let me know if you want more.").text == "Dune is a lovely book to read."
    )


def test_clauses_can_stand_alone() -> None:
    assert clauses("The plot is weak, but the cast is good.")[0] == "The plot is weak"
    assert clauses("It has wit, charm, and a good cast.") == ["It has wit, charm, and a good cast"]


@given(st.lists(st.sampled_from(TOKENS), max_size=60))
def test_whatever_is_kept_is_whole_and_short_enough(tokens: list[str]) -> None:
    result = clean(" ".join(tokens), "Dune", TOPIC, min_words=4, max_words=20)
    if isinstance(result, Cleaned):
        assert all(sentence[-1] in ".?" for sentence in result.sentences)
        assert 4 <= len(words(result.text)) <= 20
        assert len(result.sentences) <= MOST_SENTENCES
        assert result.sentiment == sentiment(result.text)
