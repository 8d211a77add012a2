"""Synthetic users: a weight for every attribute they mind, and a generated description of it.

Users on the axes mind one attribute; they are trained on. Interpolated users mind two of them equally; they are held
out, as in the paper (FSPO, arXiv 2502.19312, section 5).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from itertools import combinations, product

from fspo.judging.attributes import ATTRIBUTES, attributes_named
from fspo.preferences.types import User

__all__ = ["AXIS", "INTERPOLATED", "describe", "make_users"]

AXIS, INTERPOLATED = "axis", "interpolated"
"""The groups of users."""

_PATTERNS = (
    "Likes {liked} and dislikes {disliked}.",
    "Prefers {liked} to {disliked}.",
    "Enjoys {liked} and has no time for {disliked}.",
    "Is fond of {liked}, and less so of {disliked}.",
    "Would rather have {liked} than {disliked}.",
)
_AFTER_THE_NOUN = ("with ", "in ", "without ", "full of ", "free of ", "as ")


def make_users(attributes: Iterable[str], noun: str, seed: int) -> list[User]:
    """All axis users and all interpolated users over the attributes, in a fixed order.

    Ids are such as `high-sentiment` and `high-sentiment-low-length`; traits have length 1.

    Args:
        attributes: names of what users mind.
        noun: what the responses are called in descriptions, such as `reviews`.
        seed: draws the words of the descriptions.

    Raises:
        ConfigError: an attribute is unknown or named twice.
    """
    names = [attribute.name for attribute in attributes_named(attributes)]
    half = 1 / math.sqrt(2)
    axis = [{name: sign} for name in names for sign in (1.0, -1.0)]
    between = [
        {first: a * half, second: b * half}
        for first, second in combinations(names, 2)
        for a, b in product((1.0, -1.0), repeat=2)
    ]
    return [_user(traits, AXIS, noun, seed) for traits in axis] + [
        _user(traits, INTERPOLATED, noun, seed) for traits in between
    ]


def describe(traits: Mapping[str, float], noun: str, rng: random.Random) -> str:
    """One sentence on what somebody with these traits likes and dislikes, in words drawn by `rng`.

    Raises:
        ConfigError: an attribute is unknown.
    """
    minded = [(ATTRIBUTES[attribute.name], traits[attribute.name]) for attribute in attributes_named(traits)]
    liked = [rng.choice(attribute.high if weight > 0 else attribute.low) for attribute, weight in minded if weight]
    disliked = [rng.choice(attribute.low if weight > 0 else attribute.high) for attribute, weight in minded if weight]
    if not liked:
        return f"Has no preference among {noun}."
    return rng.choice(_PATTERNS).format(liked=_phrase(liked, noun), disliked=_phrase(disliked, "ones"))


def _user(traits: Mapping[str, float], group: str, noun: str, seed: int) -> User:
    id = "-".join(f"{'high' if weight > 0 else 'low'}-{name.replace('_', '-')}" for name, weight in traits.items())
    return User(id, describe(traits, noun, random.Random(f"{seed}/users/{id}")), traits, group)


def _phrase(words: Iterable[str], noun: str) -> str:
    words = list(words)
    before = ", ".join(word for word in words if not word.startswith(_AFTER_THE_NOUN))
    after = " and ".join(word for word in words if word.startswith(_AFTER_THE_NOUN))
    return " ".join(part for part in (before, noun, after) if part)
