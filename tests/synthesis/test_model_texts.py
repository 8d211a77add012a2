"""What is made of what models write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.llm.types import Completion
from fspo.synthesis.model_texts import fault, lines_of, tidied

GERMAN = "Die Sonne wärmt das Meer, und das Wasser steigt als Dampf auf, bis es abkühlt und als Regen fällt."
GOOD = "The sun warms the sea, and the water rises as vapour until it cools and falls again as rain on the hills."


def test_a_list_is_read_whatever_its_marks() -> None:
    text = '1. "Why is it cold?"\n2) Who came?\n\n- What now?\n* How?\n(3) Where to?\n---\n'
    assert lines_of(text) == ["Why is it cold?", "Who came?", "What now?", "How?", "Where to?"]


def test_roles_further_turns_and_torn_ends_are_cut_off() -> None:
    assert tidied(Completion("Assistant: It is cold.\nUser: Why?", 9, "stop")) == "It is cold."
    assert tidied(Completion("It is cold. Take a warm co", 9, "length")) == "It is cold."
    assert tidied(Completion("- It is cold.\n- Take a co", 9, "length")) == "- It is cold."
    assert tidied(Completion("It is so very co", 9, "length")) == ""
    assert tidied(Completion("It is cold. Take a warm co", 9, "stop")) == "It is cold. Take a warm co"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD, None),
        ("", "empty"),
        (" ... ", "empty"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I\u2019m sorry, but no.", "refusal"),
        ("As an AI I have no opinion on that at all.", "refusal"),
        ("Too short.", "too short"),
        ("the same again and " * 12, "repetition"),
        (GERMAN, "another language"),
        ("太阳温暖大海,水蒸气上升,冷却后又变成雨落下来 一 二 三 四 五", "another language"),
        ("Солнце греет море и вода поднимается", "another language"),
    ],
)  # fmt: skip
def test_texts_that_can_not_be_used_are_told_apart(text: str, why: str | None) -> None:
    assert fault(text, min_words=4, language="en") == why


def test_another_language_may_be_the_wanted_one() -> None:
    assert fault(GERMAN, min_words=4, language="de") is None
    assert fault(GOOD, min_words=4, language="de") == "another language"


@pytest.mark.parametrize("language", ["nb", "mi", "su"])
def test_a_language_that_the_identifier_does_not_know_is_none_other(language: str) -> None:
    bokmal = "Jeg liker å lese bøker om kvelden, og i helgene går jeg ofte på tur i fjellet med familien min."
    assert fault(bokmal, min_words=4, language=language) is None


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for reason in ("stop", "length"):
        kept = tidied(Completion(text, 1, reason))  # type: ignore[arg-type]
        assert kept == kept.strip()
    assert all(item.strip() for item in lines_of(text))
    fault(text, min_words=1, language="en")


def test_a_word_of_sympathy_is_no_refusal() -> None:
    text = "I'm sorry to hear that your plant died. Water the next one less, and give it light."
    assert fault(text, min_words=4, language="en") is None
    assert fault("I'm sorry, but I can't help with that one.", min_words=4, language="en") == "refusal"
