"""Answers made alike: markup gone and wording kept, lengths within a band."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.evaluation.judges.matching import bare, bared, matched_in_length
from fspo.evaluation.judges.win_rates import Answer


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


def test_pairs_within_the_band_are_kept_whichever_is_longer() -> None:
    def answers(method: str, *lengths: int) -> list[Answer]:
        return [Answer(method, "plain", f"{n}", "u", "p", "x" * length) for n, length in enumerate(lengths)]

    base = {answer.item: answer for answer in answers("base", 100, 100, 100, 100, 0)}
    kept = matched_in_length(answers("fspo", 125, 80, 126, 79, 0), base, 1.25)
    assert [answer.item for answer in kept] == ["0", "1", "4"]
    assert bared(answers("fspo", 3))[0].text == "xxx"
