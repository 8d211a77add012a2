from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ConfigError
from fspo.judging.attributes import ATTRIBUTES
from fspo.synthesis.restyled.users import AXIS, INTERPOLATED, describe, make_users

NAMES = ("sentiment", "length", "bullets", "first_person")


def test_axes_are_one_attribute_and_between_them_two() -> None:
    users = make_users(NAMES, "reviews", 0)
    axis = [user for user in users if user.group == AXIS]
    between = [user for user in users if user.group == INTERPOLATED]
    assert (len(axis), len(between), len(users)) == (8, 24, 32)
    assert all(len(user.traits) == 1 for user in axis)
    assert all(len(user.traits) == 2 for user in between)
    assert all(math.isclose(sum(w * w for w in user.traits.values()), 1) for user in users)


def test_ids_are_of_their_own_and_safe() -> None:
    ids = [user.id for user in make_users(NAMES, "reviews", 0)]
    assert len(set(ids)) == len(ids)
    assert "high-sentiment-low-first-person" in ids


def test_descriptions_vary_but_not_by_chance() -> None:
    users = make_users(ATTRIBUTES, "reviews", 1)
    assert make_users(ATTRIBUTES, "reviews", 1) == users
    assert len({user.description for user in users}) > 0.9 * len(users)
    assert make_users(ATTRIBUTES, "reviews", 2) != users


@given(st.sampled_from(sorted(ATTRIBUTES)), st.sampled_from((1.0, -1.0)), st.integers(0, 100))
def test_a_description_names_what_is_liked_before_what_is_not(name: str, weight: float, seed: int) -> None:
    text = describe({name: weight}, "reviews", random.Random(seed))
    attribute = ATTRIBUTES[name]
    liked, disliked = (attribute.high, attribute.low) if weight > 0 else (attribute.low, attribute.high)
    assert text.endswith(".")
    assert any(phrase in text.split(" ones")[0] for phrase in liked)
    assert any(phrase in text for phrase in disliked)


def test_nobody_in_particular() -> None:
    assert describe({}, "reviews", random.Random(0)) == "Has no preference among reviews."
    with pytest.raises(ConfigError, match="no attribute"):
        describe({"loudness": 1.0}, "reviews", random.Random(0))
