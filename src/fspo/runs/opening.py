"""Questions to a person at the beginning of a conversation: pairs of written responses that differ in their traits."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fspo.judging.declared import DeclaredJudge
from fspo.judging.traits import Value
from fspo.preferences.response_pair import ResponsePair
from fspo.preferences.types import Preference

__all__ = ["opening_questions"]


@dataclass(frozen=True)
class _Pair:
    question: ResponsePair
    differences: tuple[float, ...]
    """Of each trait, how much more the second response has of it: -1 to 1."""

    @property
    def size(self) -> float:
        return math.hypot(*self.differences)

    @property
    def words(self) -> int:
        return len(self.question.first.split()) + len(self.question.second.split())

    def overlap(self, other: _Pair) -> float:
        """How far both pairs tell the same: the cosine of their differences, without its sign."""
        product = math.fsum(a * b for a, b in zip(self.differences, other.differences, strict=True))
        return abs(product) / (self.size * other.size)


def opening_questions(
    rows: Iterable[Preference], judge: DeclaredJudge, count: int, seed: int = 0
) -> list[ResponsePair]:
    """At most `count` questions on different prompts, that together tell most of what a person likes.

    The responses to each question differ in many traits, and in other combinations of them than those to the questions
    before; of such pairs the shorter ones come first. The seed decides among equals. Responses that the judge does not
    know are left out.
    """
    pairs = _pairs(rows, judge)
    rng = random.Random(f"{seed}/opening")
    places = sorted((rng.random(), number) for number in range(len(pairs)))
    pairs = [pairs[number] for _, number in places]
    chosen: list[_Pair] = []
    while pairs and len(chosen) < count:
        best = max(pairs, key=lambda pair: (_gain(pair, chosen), -pair.words))
        chosen.append(best)
        pairs = [pair for pair in pairs if pair.question.prompt != best.question.prompt]
    return [pair.question for pair in chosen]


def _gain(pair: _Pair, chosen: Sequence[_Pair]) -> float:
    return round(pair.size * (1 - max((pair.overlap(other) for other in chosen), default=0.0)), 6)


def _pairs(rows: Iterable[Preference], judge: DeclaredJudge) -> list[_Pair]:
    texts: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        texts[row.prompt] |= dict.fromkeys(text for text in (row.chosen, row.rejected) if text in judge.texts)
    found = (
        _Pair(ResponsePair(prompt, one, other), _differences(judge.texts[one], judge.texts[other], judge.values))
        for prompt, known in texts.items()
        for one, other in combinations(known, 2)
    )
    return [pair for pair in found if pair.size]


def _differences(
    first: Mapping[str, Value], second: Mapping[str, Value], values: Mapping[str, tuple[Value, ...]]
) -> tuple[float, ...]:
    return tuple(
        (known.index(second[name]) - known.index(first[name])) / (len(known) - 1) for name, known in values.items()
    )
