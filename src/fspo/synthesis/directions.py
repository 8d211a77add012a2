"""Users who weigh attributes of a text, or declared traits: on the axes and between them, or sparse and at random.

Users on the axes weigh one end of one attribute and are trained on; those between weigh two equally and are held out,
as in the paper (FSPO, arXiv 2502.19312, section 5). Sparse users weigh one to a few, each more or less, and no two of
them alike, so that a training can have as many as are wanted and none of them is a held-out one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from fspo.errors import ConfigError
from fspo.judging.topics import named
from fspo.synthesis.domain import Domain

__all__ = ["AXIS", "INTERPOLATED", "Direction", "End", "axes", "describe", "ends_of", "sparse"]

AXIS, INTERPOLATED = "axis", "interpolated"
"""The groups of users on the axes and between them."""

_STRENGTHS = (1, 2, 3)
"""How much sparse users weigh each of their traits, before the weights are scaled to length 1."""
_TRIES = 2000
"""Draws in a row that may come out as a user who is there already."""
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
_PATTERNS = (
    "Likes {liked} and dislikes {disliked}.",
    "Prefers {liked} to {disliked}.",
    "Enjoys {liked} and has no time for {disliked}.",
    "Is fond of {liked}, and less so of {disliked}.",
    "Would rather have {liked} than {disliked}.",
)
_AFTER_THE_NOUN = (
    "with ", "in ", "without ", "full of ", "free of ", "as ", "that ", "for ", "at ", "by ", "of ", "on ", "about ",
)  # fmt: skip


@dataclass(frozen=True)
class End:
    """One end of an attribute, or one value of a trait: what a user may like.

    Attributes:
        of: the attribute or trait.
        name: in ids of users, such as `high-length`.
        key: in users' traits.
        sign: 1 or -1, of its weight.
        liked: what texts of this end are called.
        disliked: what texts of the other end are called.
    """

    of: str
    name: str
    key: str
    sign: float
    liked: tuple[str, ...]
    disliked: tuple[str, ...]


@dataclass(frozen=True)
class Direction:
    """What one user weighs: ends, each with a strength."""

    group: str
    ends: tuple[tuple[End, int], ...]

    @property
    def name(self) -> str:
        """Of all its ends, such as `high-sentiment-low-length`."""
        return "-".join(end.name for end, _ in self.ends)

    @property
    def traits(self) -> dict[str, float]:
        """The weights, of length 1."""
        length = math.hypot(*(strength for _, strength in self.ends))
        return {end.key: end.sign * strength / length for end, strength in self.ends}


def ends_of(domain: Domain, names: Iterable[str]) -> dict[str, list[End]]:
    """Attribute or trait -> its ends.

    Raises:
        ConfigError: an attribute is unknown.
    """
    names = list(names)
    if not domain.traits:
        return {name: _both(name, one.high, one.low) for name, one in named(names, domain.topics).items()}
    found: dict[str, list[End]] = {}
    for name in names:
        values = domain.traits[name].values
        texts = [tuple(row.text) for row in values]
        if len(values) == 2:
            found[name] = _both(name, texts[1], texts[0])
            continue
        for at, row in enumerate(values):
            called = f"{_slug(str(row.value))}-{_slug(name)}"
            end = End(name, called, f"{name}={row.value}", 1.0, texts[at], texts[_far(at, len(values))])
            found.setdefault(name, []).append(end)
    return found


def _both(name: str, high: tuple[str, ...], low: tuple[str, ...]) -> list[End]:
    return [
        End(name, f"high-{_slug(name)}", name, 1.0, high, low),
        End(name, f"low-{_slug(name)}", name, -1.0, low, high),
    ]


def _far(place: int, count: int) -> int:
    """The value farthest from one; of the middle one, the last."""
    return 0 if place > (count - 1) / 2 else count - 1


def axes(ends: Mapping[str, Sequence[End]]) -> list[Direction]:
    """Everybody on the axes, and everybody between two of them, in a fixed order."""
    alone = [Direction(AXIS, ((end, 1),)) for own in ends.values() for end in own]
    between = [
        Direction(INTERPOLATED, ((first, 1), (second, 1)))
        for one, other in combinations(ends.values(), 2)
        for first, second in product(one, other)
    ]
    return [*alone, *between]


def sparse(ends: Mapping[str, Sequence[End]], most: int, count: int, seed: int) -> list[Direction]:
    """`count` users drawn at random, no two of whom have the same weights; a larger count begins with the same ones.

    They weigh one, two, ... `most` traits in turn, as long as there are others of so many.

    Raises:
        ConfigError: there are not so many different ones.
    """
    rng = random.Random(f"{seed}/directions")
    seen: set[tuple[tuple[str, float], ...]] = set()
    found: list[Direction] = []
    most = min(most, len(ends))
    full: set[int] = set()
    for drawn in _sizes(most, full):
        if len(found) == count:
            return found
        for _ in range(_TRIES):
            direction = _drawn(ends, drawn, rng)
            key = tuple(sorted((name, round(weight, 6)) for name, weight in direction.traits.items()))
            if key not in seen:
                seen.add(key)
                found.append(direction)
                break
        else:
            full.add(drawn)
    if len(found) < count:
        raise ConfigError(
            f"synthesis.users is {count}, and users who weigh at most {most} of {', '.join(ends)} can differ in about "
            f"{len(found)} ways; ask for fewer."
        )
    return found


def _sizes(most: int, full: set[int]) -> Iterator[int]:
    """1, 2, ..., most, 1, 2, ... without those that are `full`, until all are."""
    while len(full) < most:
        yield from (size for size in range(1, most + 1) if size not in full)


def _drawn(ends: Mapping[str, Sequence[End]], size: int, rng: random.Random) -> Direction:
    names = rng.sample(list(ends), size)
    chosen = [(rng.choice(ends[name]), rng.choice(_STRENGTHS) if size > 1 else 1) for name in names]
    chosen.sort(key=lambda one: -one[1])
    number = _COUNTS.get(size, str(size))
    return Direction(f"{number} trait{'s' if size > 1 else ''}", tuple(chosen))


def describe(direction: Direction, noun: str, rng: random.Random) -> str:
    """One sentence on what a user with these weights likes, in words drawn by `rng`: what weighs most first."""
    strengths = sorted({strength for _, strength in direction.ends}, reverse=True)
    if len(strengths) == 1:
        liked = [rng.choice(end.liked) for end, _ in direction.ends]
        disliked = [rng.choice(end.disliked) for end, _ in direction.ends]
        return rng.choice(_PATTERNS).format(liked=_phrase(liked, noun), disliked=_phrase(disliked, "ones"))
    levels = [
        _phrase([rng.choice(end.liked) for end, own in direction.ends if own == strength], "ones" if place else noun)
        for place, strength in enumerate(strengths)
    ]
    between = f", then {levels[1]}," if len(levels) == 3 else ""
    return f"Likes {levels[0]} above all{between} and {levels[-1]} to a lesser degree."


def _phrase(words: Iterable[str], noun: str) -> str:
    words = list(words)
    before = ", ".join(word for word in words if not word.startswith(_AFTER_THE_NOUN))
    after = " and ".join(word for word in words if word.startswith(_AFTER_THE_NOUN))
    return " ".join(part for part in (before, noun, after) if part)


def _slug(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
