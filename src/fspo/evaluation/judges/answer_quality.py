"""What no attribute judge sees: whether an answer is language, repeats itself, and is about the question.

A judge of attributes alone can be won by gibberish that scores high on them. These measures know nothing of users; they
stand beside every win rate, and an answer below a stated floor loses, unless the other one is below it too (a tie).
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fspo.evaluation.config import Floors
from fspo.evaluation.scoring.eval_episodes import cosine

__all__ = [
    "Closeness",
    "Quality",
    "broken_floors",
    "compression_share",
    "content_words",
    "distinct_share",
    "measure_quality",
    "overlap",
    "words_of",
]

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_FUNCTION_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but by can
could did do does doing don down during each few for from further had has have having he her here hers him his how i if
in into is it its itself just like me more most my myself no nor not now of off on once only or other our out over own
please same she should so some such tell than that the their them then there these they this those through to too under
until up us very was we were what when where which while who whom why will with would write you your yours i'm i've it's
don't didn't doesn't isn't wasn't can't you're that's
"""
_STOPWORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True)
class Quality:
    """The judge-free measures of one answer."""

    log_prob: float
    """Mean log-prob a token under the base model given the question alone, in nats; NaN where it was not measured."""
    distinct: float
    """Share of different word pairs, 1 where none repeats."""
    compression: float
    """Compressed size over size, in bytes; far below that of ordinary text where phrases repeat."""
    overlap: float
    """Share of the question's content words that the answer takes up."""
    closeness: float
    """Tf-idf cosine between question and answer."""
    words: int


def broken_floors(quality: Quality, floors: Floors) -> tuple[str, ...]:
    """The names of the floors that an answer falls below."""
    return tuple(name for name in Floors.model_fields if getattr(quality, name) < getattr(floors, name))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; punctuation, emoji and list marks are none."""
    return [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]


def content_words(text: str) -> list[str]:
    """The words that say what a text is about: no function words."""
    return [word for word in words_of(text) if word not in _STOPWORDS]


def distinct_share(text: str) -> float:
    """The share of word pairs that are different from each other; 1 for a text too short to repeat one.

    The distinct-2 of Li et al. 2016 (arXiv 1510.03055).
    """
    words = words_of(text)
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def compression_share(text: str) -> float:
    """Size after zlib over size before, header aside; at most 1."""
    data = text.encode()
    if not data:
        return 1.0
    header = len(zlib.compress(b"", 9))
    return min(1.0, (len(zlib.compress(data, 9)) - header) / len(data))


def overlap(question: str, answer: str) -> float:
    """The share of the question's content words found in the answer; 1 for a question without any."""
    asked = set(content_words(question))
    return len(asked & set(content_words(answer))) / len(asked) if asked else 1.0


class Closeness:
    """Tf-idf cosine between texts, with document frequencies counted over a collection."""

    def __init__(self, documents: Iterable[str]) -> None:
        counts: Counter[str] = Counter()
        self._documents = 0
        for document in documents:
            self._documents += 1
            counts.update(set(content_words(document)))
        self._counts = counts

    def cosine(self, first: str, second: str) -> float:
        """Between 0 (no shared content word) and 1 (the same words in the same shares)."""
        return min(1.0, cosine(self._vector(first), self._vector(second)) or 0.0)

    def _vector(self, text: str) -> Mapping[str, float]:
        words = Counter(content_words(text))
        rarity = {word: math.log((1 + self._documents) / (1 + self._counts[word])) + 1 for word in words}
        return {word: count * rarity[word] for word, count in words.items()}


def measure_quality(question: str, answer: str, log_prob: float, closeness: Closeness) -> Quality:
    """Measure an answer to a question; `log_prob` is its mean log-prob a token."""
    return Quality(
        log_prob=log_prob,
        distinct=distinct_share(answer),
        compression=compression_share(answer),
        overlap=overlap(question, answer),
        closeness=closeness.cosine(question, answer),
        words=len(words_of(answer)),
    )
