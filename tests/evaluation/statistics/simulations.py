"""Small made-up studies whose truth is known, for the tests of statistics."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from fspo.evaluation.judges.length_control import Judged
from fspo.evaluation.statistics.ranking import Game

__all__ = ["Item", "coin", "judged", "scores", "tournament"]

Item = tuple[str, int]


def coin(seed: int, *, users: int, items: int) -> tuple[list[float], list[str]]:
    """What a judge who tosses a coin, or calls a tie, makes of a method."""
    generator = random.Random(seed)
    values = generator.choices([0.0, 0.5, 1.0], [2, 1, 2], k=users * items)
    return values, [str(place // items) for place in range(users * items)]


def scores(seed: int, advantages: Mapping[str, float], *, users: int, items: int) -> dict[str, dict[Item, float]]:
    """Right or wrong by method; each user has a rate of their own, and a taste for each method."""
    generator = random.Random(seed)
    found: dict[str, dict[Item, float]] = {name: {} for name in advantages}
    for user in range(users):
        rate = generator.uniform(0.4, 0.6)
        for name, advantage in advantages.items():
            own = rate + advantage + generator.uniform(-0.15, 0.15)
            found[name] |= {(str(user), item): float(generator.random() < own) for item in range(items)}
    return found


def tournament(seed: int, strengths: Mapping[str, float], *, users: int, rounds: int = 2) -> list[Game]:
    """Every user judges every pair of methods, with a taste of their own."""
    generator, names, games = random.Random(seed), list(strengths), []
    for user in range(users):
        own = {name: strength + generator.gauss(0, 0.3) for name, strength in strengths.items()}
        pairs = [(one, other) for place, one in enumerate(names) for other in names[:place]]
        for one, other in pairs * rounds:
            won = float(generator.random() < 1 / (1 + math.exp(own[other] - own[one])))
            games.append(Game(str(user), one, other, won))
    return games


def judged(
    seed: int, wins: Callable[[float, random.Random], bool], *, users: int, items: int, longer: float = 0.7
) -> list[Judged]:
    """Answers that are longer by `longer` standard deviations; `wins` says of each, by its own, whether it won."""
    generator, rows = random.Random(seed), []
    for place in range(users * items):
        extra = generator.gauss(longer, 1.0)
        score = float(wins(extra, generator))
        rows.append(Judged(str(place // items), score, round(1000 + 250 * extra), 1000))
    return rows
