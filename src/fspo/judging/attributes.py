"""Attributes of a text that people differ in, measured with well-kept libraries; the words that describe liking them.

Sentiment is VADER's (Hutto and Gilbert 2014), emoji are counted by `emoji`, how rare words are is `wordfreq`'s
(Speer 2022). What one attribute measures is kept out of the others where it can be: sentiment does not see emoji,
exclamation marks or bullets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from fspo.errors import ConfigError
from fspo.printing import suggestion

__all__ = [
    "ATTRIBUTES",
    "Attribute",
    "attributes_named",
    "emoji_count",
    "measure",
    "plain_text",
    "sentences",
    "word_rarity",
    "words",
]

_BULLET = re.compile(r"^\s*[-*•]\s+")
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)]*\s+")
_RUN = re.compile(r"\b[^.!?]+[.!?]*")
_FIRST_PERSON = re.compile(r"\b(?:I|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself)\b(?!\.)")
_INFORMAL = re.compile(
    r"\b(?:\w+n['\u2019]t|\w+['\u2019](?:s|re|ve|ll|d|m)|kinda|sorta|gonna|wanna|gotta|really|totally|super"
    r"|pretty much|stuff|honestly|yeah|okay|ok|tbh|lol|guys|a lot|a bit|way too|so much)\b",
    re.IGNORECASE,
)
_POSSESSIVE = re.compile(
    r"\b(?!(?:it|that|what|who|there|here|he|she|let|how|where)['\u2019]s\b)\w+['\u2019]s\b", re.IGNORECASE
)
_FORMAL = re.compile(
    r"\b(?:indeed|furthermore|moreover|overall|nevertheless|however|therefore|thus|regarding|remarkably|considerably"
    r"|exceedingly|it is|is not|does not|do not|did not|cannot|are not|was not|would not|that is)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Attribute:
    """A measurable property of a text.

    Attributes:
        name: the name configurations and traits use.
        measure: text -> figure; more is more.
        high: phrases for texts with much of it: adjectives, or `with ...`, `in ...`, `without ...`.
        low: the same for texts with little of it.
        about: one line on what is measured, with its unit.
    """

    name: str
    measure: Callable[[str], float]
    high: tuple[str, ...]
    low: tuple[str, ...]
    about: str


def words(text: str) -> list[str]:
    """The words of a text; contractions and hyphenated words are one word each."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences of a text; each line stands for itself."""
    parts = (part for line in text.splitlines() for part in _SENTENCE_END.split(line.strip()))
    return [part for part in parts if _WORD.search(part)]


@lru_cache(maxsize=8192)
def plain_text(text: str) -> str:
    """The wording alone: without emoji and bullets, with full stops for exclamation marks."""
    lines = (_BULLET.sub("", line) for line in _without_emoji(text).splitlines())
    bare = re.sub(r"\s+", " ", " ".join(lines))
    return re.sub(r"\s+([.?])", r"\1", re.sub(r"!+", ".", bare)).strip()


@lru_cache(maxsize=8192)
def sentiment(text: str) -> float:
    """VADER's compound score of the wording, -1 (negative) to 1 (positive)."""
    return float(_vader().polarity_scores(plain_text(text))["compound"])


def length(text: str) -> float:
    """Number of words."""
    return float(len(words(text)))


def bullets(text: str) -> float:
    """Share of the lines that are list items, 0 to 1."""
    lines = [line for line in text.splitlines() if line.strip()]
    return sum(bool(_BULLET.match(line)) for line in lines) / len(lines) if lines else 0.0


def emoji_count(text: str) -> float:
    """Number of emoji, at most 3: a fourth makes no difference to any user."""
    import emoji

    return float(min(emoji.emoji_count(text), 3)) if _may_hold_emoji(text) else 0.0


def exclamation(text: str) -> float:
    """Share of the sentences that end in an exclamation mark, 0 to 1."""
    parts = sentences(_without_emoji(text))
    return sum("!" in part[-4:] for part in parts) / len(parts) if parts else 0.0


def first_person(text: str) -> float:
    """Number of words by which the writer speaks of themselves (I, me, my, mine, myself), at most 2."""
    return float(min(len(_FIRST_PERSON.findall(text)), 2))


def formality(text: str) -> float:
    """Formal turns minus contractions and colloquial words, per sentence, -3 to 3."""
    plain = plain_text(text)
    informal = len(_INFORMAL.findall(_POSSESSIVE.sub("", plain)))
    score = (len(_FORMAL.findall(plain)) - informal) / max(1, len(sentences(plain)))
    return max(-3.0, min(3.0, score))


def reading_grade(text: str) -> float:
    """The automated readability index: about the school grade needed to read the wording, 0 to 20.

    Words are what lies between spaces; sentences of one or two words are not counted (Senter and Smith 1967).
    """
    plain = plain_text(text)
    if not words(plain):
        return 0.0
    characters, pieces = len(plain) - plain.count(" "), plain.count(" ") + 1
    long = sum(_count(sentence) > 2 for sentence in _RUN.findall(plain))
    grade = 4.71 * characters / pieces + 0.5 * _count(plain) / max(1, long) - 21.43
    return max(0.0, min(20.0, grade))


def _count(text: str) -> int:
    """Number of words between spaces, without lone punctuation."""
    return sum(any(map(str.isalnum, word)) for word in text.split())


@lru_cache(maxsize=65536)
def _zipf(word: str) -> float:
    from wordfreq import zipf_frequency

    return float(zipf_frequency(word, "en"))


def rarity(text: str) -> float:
    """How rare the words are on average: 8 minus the Zipf frequency, from 0 (`the`) to 8 (not in any corpus)."""
    tokens = words(plain_text(text))
    return sum(map(word_rarity, tokens)) / len(tokens) if tokens else 0.0


def word_rarity(word: str) -> float:
    """How rare a word is: 8 minus its Zipf frequency, from 0 (`the`) to 8 (not in any corpus)."""
    return 8.0 - _zipf(word.lower())


def attributes_named(names: Iterable[str]) -> tuple[Attribute, ...]:
    """Look attributes up.

    Raises:
        ConfigError: an attribute is unknown or named twice; the nearest known one is named.
    """
    names = list(names)
    for name in names:
        if name not in ATTRIBUTES:
            raise ConfigError(f"There is no attribute '{name}'{suggestion(name, ATTRIBUTES)}")
        if names.count(name) > 1:
            raise ConfigError(f"The attribute '{name}' is listed twice; list it once.")
    return tuple(ATTRIBUTES[name] for name in names)


def measure(text: str, names: Iterable[str]) -> dict[str, float]:
    """Measure the named attributes of a text."""
    return {attribute.name: attribute.measure(text) for attribute in attributes_named(names)}


def _without_emoji(text: str) -> str:
    import emoji

    return str(emoji.replace_emoji(text, "")) if _may_hold_emoji(text) else text


def _may_hold_emoji(text: str) -> bool:
    """Whether any character belongs to an emoji; the library is slow to look for them, and curly quotes are common."""
    return not (text.isascii() or _emoji_characters().isdisjoint(text))


@cache
def _emoji_characters() -> frozenset[str]:
    """All characters of emoji beyond ASCII, and both variation selectors, which are removed with them."""
    import emoji

    return frozenset("\ufe0e\ufe0f".join(emoji.EMOJI_DATA)).difference(map(chr, range(128)))


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


_TABLE = (
    Attribute(
        "sentiment",
        sentiment,
        ("glowing", "positive", "enthusiastic", "full of praise"),
        ("negative", "harsh", "critical", "full of complaints"),
        "VADER's compound score of the wording, -1 to 1",
    ),
    Attribute(
        "length",
        length,
        ("long", "detailed", "wordy"),
        ("short", "brief", "terse"),
        "number of words",
    ),
    Attribute(
        "bullets",
        bullets,
        ("in bullet points", "with bullet points", "as a list"),
        ("in prose", "without bullet points", "as running text"),
        "share of lines that are list items, 0 to 1",
    ),
    Attribute(
        "emoji",
        emoji_count,
        ("with emoji", "with a few emoji", "full of emoji"),
        ("without emoji", "free of emoji", "with no emoji"),
        "number of emoji, at most 3",
    ),
    Attribute(
        "exclamation",
        exclamation,
        ("with exclamation marks", "excited", "full of exclamation marks"),
        ("calm", "without exclamation marks", "even-toned"),
        "share of sentences that end in an exclamation mark, 0 to 1",
    ),
    Attribute(
        "first_person",
        first_person,
        ("personal", "in the first person", "with the writer's own 'I'"),
        ("impersonal", "without any 'I' or 'me'", "detached"),
        "number of first-person words, at most 2",
    ),
    Attribute(
        "formality",
        formality,
        ("formal", "in formal language", "correct"),
        ("casual", "in everyday language", "with contractions and slang"),
        "formal turns minus contractions and slang, per sentence, -3 to 3",
    ),
    Attribute(
        "reading_grade",
        reading_grade,
        ("sophisticated", "in demanding language", "with complex sentences"),
        ("simple", "in plain language", "with easy words"),
        "automated readability index, about a school grade, 0 to 20",
    ),
    Attribute(
        "rarity",
        rarity,
        ("with technical terms", "in specialist language", "full of rare words"),
        ("with everyday words", "without technical terms", "in common words"),
        "mean rarity of the words, 8 minus the Zipf frequency, 0 to 8",
    ),
)
ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType({attribute.name: attribute for attribute in _TABLE})
"""Every known attribute by name."""
