from __future__ import annotations

import pytest

from fspo.errors import DataError
from fspo.judging.attributes import ATTRIBUTES, sentiment
from fspo.synthesis.restyled.domain import Work, load_domain

REVIEWS = load_domain("reviews")


def test_the_reviews_domain_is_rich_enough() -> None:
    assert len(REVIEWS.works) >= 120
    assert len(REVIEWS.questions) == 8
    assert {work.kind for work in REVIEWS.works} == {"film", "series", "anime", "book"}
    assert len(REVIEWS.steered("positive")) == len(REVIEWS.steered("negative")) >= 4


def test_works_have_ids_of_their_own() -> None:
    ids = [work.id for work in REVIEWS.works]
    assert len(set(ids)) == len(ids)
    assert Work("book", "Moby-Dick").id == "book/moby-dick"


def test_patterns_are_filled_completely() -> None:
    work = REVIEWS.works[0]
    patterns = [*REVIEWS.questions, *(o for p in REVIEWS.personas for o in (*p.openings, p.system))]
    for pattern in patterns:
        assert "{" not in work.fill(pattern)


def test_no_opening_speaks_against_its_persona() -> None:
    for persona in REVIEWS.personas:
        sign = 1 if persona.sentiment == "positive" else -1
        for opening in persona.openings:
            assert sentiment(Work("book", "Foundation").fill(opening)) * sign >= 0, opening


def test_styles_change_only_what_they_are_for() -> None:
    for pool in REVIEWS.styles.emoji.values():
        assert all(ATTRIBUTES["emoji"].measure(sign) == 1 for sign in pool)
    for opener in REVIEWS.styles.first_person:
        assert ATTRIBUTES["first_person"].measure(opener) >= 1
        assert abs(sentiment(opener)) < 0.2, opener


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(DataError, match="no domain 'elsewhere'"):
        load_domain("elsewhere")
