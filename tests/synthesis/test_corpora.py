"""The rules that the written texts of the package keep, so that their declared traits are true."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import pytest

from fspo.synthesis.domain import load_domain
from fspo.synthesis.written import WrittenText

ADVICE, ELIX, REVIEWS = (load_domain(name).written for name in ("advice", "elix-written", "reviews-written"))
MOST_OPENERS = 8
"""Texts of a domain that begin with the same three words, at most."""
CONTRACTION = re.compile(r"\b\w+'(?:s|t|re|ve|ll|d|m)\b", re.IGNORECASE)
SURE_CONTRACTION = re.compile(
    r"\b(?:\w+n't|\w+'(?:re|ve|ll|d|m)|(?:it|that|there|here|what|who|how|where|he|she|let|nobody|everyone|everybody"
    r"|someone|something|nothing|everything|one)'s)\b",
    re.IGNORECASE,
)
ROWS = {"a": "0000000", "b": "0001111", "c": "0110011", "d": "0111100", "e": "1010101", "f": "1011010",
        "g": "1100110", "h": "1101001"}  # fmt: skip
"""Answer -> its traits to every odd question; to the even ones it has the complement."""


def by_question(rows: Iterable[WrittenText]) -> dict[str, list[WrittenText]]:
    found: dict[str, list[WrittenText]] = {}
    for row in rows:
        found.setdefault(row.question, []).append(row)
    return found


def wrong(rows: Iterable[WrittenText], holds: Callable[[WrittenText], object]) -> list[str]:
    """The ids of the texts that a rule does not hold for."""
    return [row.id for row in rows if not holds(row)]


def words(text: str) -> int:
    return len(re.sub(r"^- ", "", text, flags=re.MULTILINE).split())


def normal(text: str) -> list[str]:
    return re.sub(r"[^\w' ]", "", text.lower().replace("\n", " ")).split()


@pytest.mark.parametrize("rows", [ADVICE, ELIX, REVIEWS], ids=["advice", "elix", "reviews"])
def test_texts_and_their_openings_are_their_own(rows: Sequence[WrittenText]) -> None:
    texts = Counter(" ".join(normal(row.text)) for row in rows)
    assert not [text for text, count in texts.items() if count > 1]
    openers = Counter(" ".join(normal(row.text)[:3]) for row in rows)
    assert not {opener: count for opener, count in openers.items() if count > MOST_OPENERS}
    questions = [question.lower() for question in by_question(rows)]
    assert len(set(questions)) == len(questions)
    assert not wrong(rows, lambda row: row.text == row.text.strip() and "  " not in row.text)
    assert all(len({row.topic for row in own}) == 1 for own in by_question(rows).values())


def test_the_traits_of_advice_are_an_orthogonal_array() -> None:
    for number, own in enumerate(by_question(ADVICE).values(), start=1):
        assert [row.id for row in own] == [f"advice-{number:03}-{letter}" for letter in "abcdefgh"]
        for row in own:
            bits = [int(bit) for bit in ROWS[row.id[-1]]]
            assert list(row.traits.values()) == (bits if number % 2 else [1 - bit for bit in bits]), row.id
        assert 5 <= len(own[0].question.split()) <= 18


def test_advice_is_as_long_and_of_the_form_that_it_declares() -> None:
    lengths, items = {0: (12, 22), 1: (40, 60)}, {0: (2, 2), 1: (3, 5)}

    def of_the_length(row: WrittenText) -> bool:
        least, most = lengths[int(row.traits["length"])]
        return least <= words(row.text) <= most

    def of_the_form(row: WrittenText) -> bool:
        lines = row.text.split("\n")
        listed = [line.startswith("- ") for line in lines]
        if not row.traits["form"]:
            return len(lines) == 1 and not listed[0]
        least, most = items[int(row.traits["length"])]
        return least <= sum(listed) <= most and all(listed[1:])

    assert not wrong(ADVICE, of_the_length)
    assert not wrong(ADVICE, of_the_form)


def test_formal_advice_has_no_contractions_and_casual_advice_has_some() -> None:
    formal = [row for row in ADVICE if row.traits["register"]]
    casual = [row for row in ADVICE if not row.traits["register"]]
    assert not wrong(formal, lambda row: not SURE_CONTRACTION.search(row.text))
    assert not wrong(casual, lambda row: CONTRACTION.search(row.text))


def test_advice_is_plain_text() -> None:
    assert not wrong(ADVICE, lambda row: re.fullmatch(r"[A-Za-z0-9 \n.,;:!?'\"()%&/+\-]+", row.text))
    assert not wrong(ADVICE, lambda row: not re.search(r" - |--", re.sub(r"^- ", "", row.text, flags=re.MULTILINE)))


LEVELS = ("child", "preteen", "teenager", "undergraduate", "expert")


def of_level(measure: Callable[[str], float]) -> dict[str, list[float]]:
    return {level: [measure(row.text) for row in ELIX if row.traits["level"] == level] for level in LEVELS}


def grade(text: str) -> float:
    """Flesch and Kincaid's, with syllables by rule."""
    tokens = text.split()
    sentences = max(1, len(re.findall(r"[.!?]['\"]?(?:\s|$)", text)))
    return 0.39 * len(tokens) / sentences + 11.8 * sum(map(syllables, tokens)) / len(tokens) - 15.59


def syllables(word: str) -> int:
    word = re.sub(r"[^a-z]", "", word.lower())
    count = len(re.findall(r"[aeiouy]+", word))
    silent = re.search(r"[^aeiouyl]e$|[^aeiouytd]ed$|[^aeiouycgsxz]es$", word)
    return max(count - bool(count > 1 and silent), 1)


def test_each_thing_is_explained_at_every_level_in_both_ways() -> None:
    for own in by_question(ELIX).values():
        assert {(row.traits["level"], row.traits["approach"]) for row in own} == {
            (level, approach) for level in LEVELS for approach in (0, 1)
        }
    assert not wrong(ELIX, lambda row: row.id.endswith(f"-{row.traits['level']}-{row.traits['approach']}"))


def test_explanations_are_harder_from_level_to_level() -> None:
    grades = [statistics.fmean(figures) for figures in of_level(grade).values()]
    assert grades == sorted(set(grades))


def test_the_length_of_an_explanation_does_not_give_its_level_away() -> None:
    lengths = of_level(lambda text: float(len(text.split())))
    assert all(22 <= length <= 48 for figures in lengths.values() for length in figures)
    means = [statistics.fmean(figures) for figures in lengths.values()]
    assert max(means) / min(means) <= 1.15
    for one, other in combinations(lengths.values(), 2):
        above = sum((b > a) + 0.5 * (b == a) for a in one for b in other) / len(one) / len(other)
        assert 0.35 <= above <= 0.65


def test_explanations_are_plain_text_and_few_analogies_begin_alike() -> None:
    marks = re.compile(r"[*_#`|]|\n|\bkids\b|(?:^|[.!?] )(?:Children|Class|Students|Colleagues),", re.IGNORECASE)
    assert not wrong(ELIX, lambda row: not marks.search(row.text) and row.text[-1] in ".?!'\"")
    analogies = [row for row in ELIX if row.traits["approach"]]
    stock = [row for row in analogies if normal(row.text)[0] in ("imagine", "picture", "suppose", "think")]
    assert len(stock) <= 0.1 * len(analogies)


def test_each_work_is_reviewed_in_every_combination_at_its_length() -> None:
    for own in by_question(REVIEWS).values():
        assert len({tuple(row.traits.values()) for row in own}) == len(own) == 8
        assert 4 <= len(own[0].question.split()) <= 12
    lengths = {0: range(10, 21), 1: range(40, 61)}
    assert not wrong(REVIEWS, lambda row: len(row.text.split()) in lengths[int(row.traits["length"])])


def test_reviews_are_prose_without_ratings() -> None:
    rating = re.compile(r"\d\s*/\s*\d+|\bstars?\b out of|out of (?:ten|five)")
    assert not wrong(REVIEWS, lambda row: row.text[-1] in ".!?\"'" and not rating.search(row.text))
    assert not wrong(REVIEWS, lambda row: re.fullmatch(r"[\x00-\x7f\u00c0-\u024f]+", row.text))
    assert sum("!" in row.text for row in REVIEWS) <= 0.1 * len(REVIEWS)
