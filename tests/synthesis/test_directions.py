"""Users who weigh attributes: on the axes, between them, and sparse at random."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ConfigError
from fspo.judging.attributes import ATTRIBUTES
from fspo.synthesis.directions import AXIS, INTERPOLATED, Direction, axes, describe, ends_of, sparse
from fspo.synthesis.domain import load_domain

NAMES = ("sentiment", "length", "bullets", "first_person")
ENDS = ends_of(load_domain("reviews-restyled"), NAMES)


def test_axes_are_one_attribute_and_between_them_two() -> None:
    users = axes(ENDS)
    axis = [user for user in users if user.group == AXIS]
    between = [user for user in users if user.group == INTERPOLATED]
    assert (len(axis), len(between), len(users)) == (8, 24, 32)
    assert all(len(user.traits) == 1 for user in axis)
    assert all(len(user.traits) == 2 for user in between)
    assert all(math.isclose(sum(w * w for w in user.traits.values()), 1) for user in users)
    ids = [user.name for user in users]
    assert len(set(ids)) == len(ids)
    assert "high-sentiment-low-first-person" in ids


def test_sparse_users_weigh_one_to_a_few_and_no_two_are_alike() -> None:
    users = sparse(ENDS, 3, 300, seed=0)
    assert Counter(len(user.traits) for user in users)[1] == 8  # there are no more of these
    assert {len(user.traits) for user in users} == {1, 2, 3}
    assert all(math.isclose(sum(w * w for w in user.traits.values()), 1) for user in users)
    weights = {tuple(sorted((name, round(w, 6)) for name, w in user.traits.items())) for user in users}
    assert len(weights) == 300
    assert sparse(ENDS, 3, 50, seed=0) == users[:50]
    assert sparse(ENDS, 3, 50, seed=1) != users[:50]


def test_more_sparse_users_than_there_can_be_are_refused() -> None:
    two = {name: ENDS[name] for name in NAMES[:2]}
    with pytest.raises(ConfigError, match=r"can differ in about 32 ways; ask for fewer\."):
        sparse(two, 3, 40, seed=0)


@given(st.sampled_from(sorted(ATTRIBUTES)), st.sampled_from((0, 1)), st.integers(0, 100))
def test_a_description_names_what_is_liked_before_what_is_not(name: str, at: int, seed: int) -> None:
    end = ends_of(load_domain("reviews-restyled"), [name])[name][at]
    text = describe(Direction(AXIS, ((end, 1),)), "reviews", random.Random(seed))
    assert text.endswith(".")
    assert any(phrase in text.split(" ones")[0] for phrase in end.liked)
    assert any(phrase in text for phrase in end.disliked)


@given(st.integers(0, 200))
def test_a_description_says_what_weighs_most_first(seed: int) -> None:
    rng = random.Random(seed)
    (direction,) = [user for user in sparse(ENDS, 3, 3, seed) if len(user.ends) == 3]
    text = describe(direction, "reviews", rng)
    strengths = [strength for _, strength in direction.ends]
    if len(set(strengths)) == 1:
        return
    places = [min(text.find(phrase) for phrase in end.liked if phrase in text) for end, _ in direction.ends]
    strongest = [place for place, strength in zip(places, strengths, strict=True) if strength == max(strengths)]
    assert max(strongest) < text.index("above all")
    assert all(place > text.index("above all") for place in places if place not in strongest)
