"""Texts without markup: the marks are gone, and the wording is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.preferences.markup import bare


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        ("# Title\n\n- one\n- two", "Title one two"),
        ("1. one\n2) two\n(3) three", "one two three"),
        ("It is **very** good, and *so* is `that`.", "It is very good, and so is that."),
        ("Nice \U0001f600!", "Nice !"),
        ("See [the site](http://a.b/c_d).", "See the site."),
        ("```python\nprint(1)\n```", "print(1)"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a b --- --- 1 2"),
        ("> quoted\n---\nrest", "quoted rest"),
        ("snake_case and 2 * 3 and well-known", "snake_case and 2 * 3 and well-known"),
        ("- - nested", "nested"),
        ("plain words.", "plain words."),
    ],
)
def test_markup_goes_and_wording_stays(text: str, wording: str) -> None:
    assert bare(text) == wording


@given(st.lists(st.text("abcdefgh", min_size=1), min_size=1))
def test_plain_words_stay_as_they_are(words: list[str]) -> None:
    assert bare(" ".join(words)) == " ".join(words)
