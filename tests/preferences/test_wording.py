"""When two texts are one question."""

from __future__ import annotations

import unicodedata
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.preferences.wording import is_blank, spellings, wording


@pytest.mark.parametrize(
    "other",
    [
        "is it  warm\tin the\ncafé?",
        " Is it warm in the café? ",
        "IS IT WARM IN THE CAFÉ?",
        unicodedata.normalize("NFD", "Is it warm in the café?"),
        "Is it warm in the ｃａｆé?",  # full width
        "Is it\u00a0warm in\u2003the café\uff1f",
        "\ufeffIs it warm\u200b in the ca\u00adfé?",
    ],
)
def test_blanks_case_and_unicode_form_make_no_other_question(other: str) -> None:
    assert wording(other) == wording("Is it warm in the café?")


@pytest.mark.parametrize("other", ["Is it warm in the cafe?", "Is it warm in the café", "Isit warm in the café?", ""])
def test_other_letters_and_signs_do(other: str) -> None:
    assert wording(other) != wording("Is it warm in the café?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2⁵?", "What is 25?"),
        ("Is it ½?", "Is it 1\u20442?"),
        ("Which is ②?", "Which is 2?"),
        ("H₂O", "H2O"),
    ],
)
def test_signs_with_a_meaning_of_their_own_make_another_question(one: str, other: str) -> None:
    assert wording(one) != wording(other)


def test_letters_fold_to_several_letters() -> None:
    assert wording("STRASSE") == wording("Straße")
    assert wording("İ") == wording("i\u0307")


def test_letters_of_half_width_are_composed() -> None:
    assert wording("\uff76\uff9e\u3000?") == wording("\u30ac ?")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_form_of_a_text_has_its_wording(text: str) -> None:
    same = wording(text)
    assert wording(same) == same
    for form in ("NFC", "NFD"):
        assert wording(unicodedata.normalize(form, text)) == same
    assert wording(text.casefold()) == same
    assert is_blank(text) == (same == "")


@pytest.mark.parametrize(("text", "blank"), [("", True), (" \n", True), ("\u200b\ufeff", True), ("\u200ba", False)])
def test_what_nobody_sees_is_blank(text: str, blank: bool) -> None:
    assert is_blank(text) is blank


def test_no_text_stays_in_memory() -> None:
    class Marked(str):
        """A text that can be watched."""

    for text in ("Is it warm here?", "Ist es hier für Ann warm?"):
        marked = Marked(text)
        watched = weakref.ref(marked)
        wording(marked)
        del marked
        assert watched() is None


def test_spellings_of_one_text() -> None:
    assert spellings(["Why?", "How?", "why? ", "Why?", "WHY?"]) == [("Why?", "why? ", "WHY?")]
    assert spellings(["Why?", "Why?", "Why"]) == []
