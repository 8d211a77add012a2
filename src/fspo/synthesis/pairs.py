"""Which pairs of responses are put before whom: some that all users share, the others drawn for each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from fspo.errors import DataError
from fspo.preferences.types import Split
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain, Question
from fspo.synthesis.responses import Response
from fspo.synthesis.restyled_responses import made_of_one_text
from fspo.synthesis.similarity import jaccard, shingles
from fspo.synthesis.user_slots import slots_of, split_users

__all__ = ["Pair", "Pairs", "held_out_units", "pairs_of", "split_questions"]

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
        config: SynthesisConfig,
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
        self._listed: dict[str, list[Pair]] = {}
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

    def of_each_question(self, user: str, split: Split) -> Iterator[Iterator[Pair]]:
        """All pairs of each question in a user's part, in an order drawn for the user."""
        for id in self._parts[split] or list(self._questions):
            rng = random.Random(f"{self._config.seed}/pairs/{user}/{id}")
            yield self._shuffled(id, rng)

    def _shuffled(self, id: str, rng: random.Random) -> Iterator[Pair]:
        pairs = self._all(id)
        for pair in rng.sample(pairs, len(pairs)):
            yield pair if rng.random() < 0.5 else Pair(pair.question, pair.b, pair.a)

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
        restyled = "sample" in self._responses[pool[0]][0].made  # of whose pairs some are not allowed
        if restyled or sum(size * (size - 1) // 2 for size in sizes) < _FEW * (count + len(seen)):
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
        if id not in self._listed:
            own = combinations(self._responses[id], 2)
            self._listed[id] = [Pair(self._questions[id], a, b) for a, b in own if self._allowed(a, b)]
        return self._listed[id]

    def _allowed(self, a: Response, b: Response) -> bool:
        """Whether two responses may be a pair: not where they are near-duplicates of different sampled texts.

        Two that were made from one text share their wording on purpose and differ in style.
        """
        if made_of_one_text(a, b):
            return self._config.restyling.same_text_pairs
        if "sample" not in a.made:  # near-duplicates among other responses are not used at all
            return True
        return jaccard(shingles(a.text), shingles(b.text)) < self._config.near_duplicate


def pairs_of(
    config: SynthesisConfig, domain: Domain, questions: Sequence[Question], responses: Sequence[Response]
) -> tuple[Pairs, dict[Split, frozenset[str]]]:
    """The pairs of a dataset, and the parts of its questions: for validation only where there are users for it.

    Raises:
        DataError: too few questions have two responses for some to be trained on and others held out.
    """
    used = Counter(response.question for response in responses)
    nobody_validates = not split_users(config, slots_of(config, domain))["validation"]
    shares = config.model_copy(update={"validation": 0.0}) if nobody_validates else config
    parts = split_questions(shares, questions, {id for id, count in used.items() if count >= 2})
    if not parts["train"]:
        raise DataError(
            "The questions with two usable responses are all about one work, so none is left to train on; ask "
            "about more works (synthesis.questions), or for more responses."
        )
    return Pairs(config, questions, responses, parts, domain.users.own_share), parts


def split_questions(
    config: SynthesisConfig, questions: Sequence[Question], used: set[str]
) -> dict[Split, frozenset[str]]:
    """Hold out whole units, such as all questions on one work; questions without a pair belong to no part.

    `used` are the ids of the questions with at least two responses.
    """
    units: dict[str, set[str]] = {}
    for question in questions:
        if question.id in used:
            units.setdefault(question.unit, set()).add(question.id)
    names = sorted(units)
    random.Random(f"{config.seed}/split questions").shuffle(names)
    tested, validated = held_out_units(config, len(names))
    chosen: dict[Split, list[str]] = {
        "train": names[tested + validated :],
        "validation": names[tested : tested + validated],
        "test": names[:tested],
    }
    return {split: frozenset().union(*(units[name] for name in own)) for split, own in chosen.items()}


def held_out_units(config: SynthesisConfig, count: int) -> tuple[int, int]:
    """How many of so many units of questions are for the test, and for validation."""
    tested = max(1, min(round(config.held_out * count), count - 1))  # one at least is to train on
    validated = max(1, round(config.validation * count)) if config.validation and count > 3 else 0
    return tested, max(0, min(validated, count - tested - 1))
