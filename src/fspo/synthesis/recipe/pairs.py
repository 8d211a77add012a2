"""Which pairs of responses are put before whom: some that all users share, the others drawn for each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fspo.preferences.types import Split
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.domain import RecipeDomain
from fspo.synthesis.recipe.questions import Question
from fspo.synthesis.recipe.responses import Response

__all__ = ["Pair", "Pairs", "pairs_of", "split_questions"]

_FEW = 4
"""A pool is listed as a whole where it is less than so many times what is drawn from it."""


@dataclass(frozen=True)
class Pair:
    """Two responses to one question."""

    question: Question
    a: Response
    b: Response

    @property
    def key(self) -> tuple[str, str]:
        """Which pair this is, whatever its order."""
        return min(self.a.id, self.b.id), max(self.a.id, self.b.id)


class Pairs:
    """The pairs of a dataset; users see those of questions in their own part, and the shared ones."""

    def __init__(
        self,
        config: RecipeConfig,
        questions: Iterable[Question],
        responses: Iterable[Response],
        parts: dict[Split, frozenset[str]],
        own_share: float,
    ) -> None:
        """Take the questions with at least two responses; `parts` are ids of questions."""
        self._config, self._own_share = config, own_share
        own: dict[str, list[Response]] = {}
        for response in responses:
            own.setdefault(response.question, []).append(response)
        self._responses = {id: items for id, items in own.items() if len(items) >= 2}
        self._questions = {q.id: q for q in questions if q.id in self._responses}
        self._parts = {split: [id for id in self._questions if id in ids] for split, ids in parts.items()}
        self._shared = self._draw(list(self._questions), config.shared_pairs, f"{config.seed}/shared pairs", set())

    @property
    def shared(self) -> list[Pair]:
        """The pairs that every user is asked about."""
        return list(self._shared)

    def of(self, user: str, split: Split, topic: str = "") -> list[Pair]:
        """All pairs of a user: the shared ones, and others of their part, some of them on their own topic."""
        seen = {pair.key for pair in self._shared}
        pairs = self.shared
        rest = self._config.pairs - len(pairs)
        part = self._parts[split] or list(self._questions)
        seed = f"{self._config.seed}/pairs/{user}"
        own = [id for id in part if topic and self._questions[id].topic == topic]
        pairs += self._draw(own, round(self._own_share * rest) if own else 0, f"{seed}/own", seen)
        return pairs + self._draw(part, self._config.pairs - len(pairs), seed, seen)

    def to_refine(self, user: str, split: Split, turn: int, count: int) -> list[Pair]:
        """Pairs of a user's part for one round of refinement."""
        part = self._parts[split] or list(self._questions)
        return self._draw(part, count, f"{self._config.seed}/refinement/{user}/{turn}", set())

    def _draw(self, pool: Sequence[str], count: int, seed: str, seen: set[tuple[str, str]]) -> list[Pair]:
        """Up to `count` pairs of the pool's questions that were not seen; they count as seen from then on."""
        rng, found = random.Random(seed), list[Pair]()
        if count <= 0 or not pool:
            return found
        sizes = [len(self._responses[id]) for id in pool]
        if sum(size * (size - 1) // 2 for size in sizes) < _FEW * (count + len(seen)):
            everything = [pair for id in pool for pair in self._all(id)]
            rng.shuffle(everything)
            drawn: Iterable[Pair] = everything
        else:
            drawn = iter(lambda: self._one(pool, rng), None)
        for pair in drawn:
            if pair.key not in seen:
                seen.add(pair.key)
                found.append(pair)
                if len(found) == count:
                    break
        return found

    def _one(self, pool: Sequence[str], rng: random.Random) -> Pair:
        id = rng.choice(pool)
        a, b = rng.sample(self._responses[id], 2)
        return Pair(self._questions[id], a, b)

    def _all(self, id: str) -> list[Pair]:
        own = self._responses[id]
        return [Pair(self._questions[id], a, b) for place, a in enumerate(own) for b in own[place + 1 :]]


def pairs_of(
    config: RecipeConfig, domain: RecipeDomain, questions: Sequence[Question], responses: Sequence[Response]
) -> tuple[Pairs, dict[Split, frozenset[str]]]:
    """The pairs of a dataset, and the parts of its questions."""
    used = Counter(response.question for response in responses)
    parts = split_questions(config, questions, {id for id, count in used.items() if count >= 2})
    return Pairs(config, questions, responses, parts, domain.users.own_share), parts


def split_questions(config: RecipeConfig, questions: Sequence[Question], used: set[str]) -> dict[Split, frozenset[str]]:
    """Hold out whole units, such as all questions on one work; questions without a pair belong to no part.

    Args:
        config: the shares.
        questions: all questions.
        used: ids of the questions with at least two responses.
    """
    units: dict[str, set[str]] = {}
    for question in questions:
        if question.id in used:
            units.setdefault(question.unit, set()).add(question.id)
    names = sorted(units)
    random.Random(f"{config.seed}/split questions").shuffle(names)
    tested = max(1, min(round(config.held_out * len(names)), len(names) - 1))  # one at least is to train on
    validated = max(1, round(config.validation * len(names))) if config.validation and len(names) > 3 else 0
    validated = min(validated, len(names) - tested - 1)
    chosen: dict[Split, list[str]] = {
        "train": names[tested + validated :],
        "validation": names[tested : tested + validated],
        "test": names[:tested],
    }
    return {split: frozenset().union(*(units[name] for name in own)) for split, own in chosen.items()}
