"""From what a small model says to a usable review: the first whole sentences, or the reason why there is none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fspo.judging.attributes import plain_text, sentences, sentiment, words

__all__ = ["MOST_SENTENCES", "Cleaned", "Rejected", "clauses", "clean"]

MOST_SENTENCES = 4
"""Sentences kept of one text, at most."""

_EDGES = " ,;:\u2014\u2013"
_TYPOGRAPHY = "\u2018\u2019\u201c\u201d\u2014\u2013\u2026"
_LINE_MARK = re.compile(r"^\s*(?:[-*•#>]+|\d+[.)])\s*")
_ROLE = re.compile(
    r"\b(?:user|assistant|system|human|question|answer|review|critic|parent|reviewer)\s*:", re.IGNORECASE
)
_MARKUP = re.compile(r"[*_`#<>\[\]{}|\\]|https?:|www\.")
_REFUSAL = re.compile(r"\b(?:as an AI|language model|I'm sorry|I am sorry|Dear [A-Z]|two sentences|short sentences)")
_CHAT = re.compile(
    r"\b(?:you enjoyed|happy to help|any (?:more |other )?(?:questions|recommendations)|let me know|you asked"
    r"|feel free)\b",
    re.I,
)
_CLAUSE = re.compile(
    r"\s*(?:[,;:\u2014\u2013]|\s-\s)\s+(?=(?:and (?:it|it's|the|they|there|I|he|she|this|that)|but|with|which|where"
    r"|while|so|making|leaving|yet|though|because)\b)"
    r"|\s+(?=(?:which|because|while|although)\b)"
)
_OPEN_END = re.compile(
    r"\b(?:and|or|but|with|of|the|a|an|to|in|on|for|is|are|was|that|which|who|its|their|his|her|as|by|from|not|very|so|at|be)$",
    re.I,
)
_EMPTY = re.compile(r"^(?:but|however|and|so|in conclusion|in short),?(?: \S+){0,4}[.?]$", re.I)
_CLEAR = 0.3


@dataclass(frozen=True)
class Cleaned:
    """A usable text.

    `sentences` are whole, each with its full stop or question mark; `sentiment` is that of all together, -1 to 1;
    `cuts` says what was cut off the raw text, such as `contradiction` or `clause`.
    """

    sentences: tuple[str, ...]
    sentiment: float
    cuts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentences in a row."""
        return " ".join(self.sentences)


@dataclass(frozen=True)
class Rejected:
    """Why a text was not used, in a word or two."""

    reason: str


def clauses(sentence: str) -> list[str]:
    """A sentence cut before its clauses; the first piece can stand alone."""
    return [part.strip(_EDGES) for part in _CLAUSE.split(sentence.rstrip(".!?")) if part.strip(_EDGES)]


def clean(raw: str, title: str, topic: Iterable[str], *, min_words: int = 6, max_words: int = 40) -> Cleaned | Rejected:
    """Keep the first whole sentences of a raw text (opening included) that agree with each other in sentiment.

    A text with fewer than `min_words` is too short, one with neither the title of the work nor a word of `topic` is off
    the topic, and whole sentences beyond `max_words` are cut off. `raw` is the opening and what the model added to it.
    """
    if _ROLE.search(raw) or _REFUSAL.search(raw):
        return Rejected("role marker or refusal")
    lines = [_LINE_MARK.sub("", line) for line in raw.splitlines() if line.strip()]
    text = _tidy(" ".join(lines[:MOST_SENTENCES]))
    if _MARKUP.search(text):
        return Rejected("markup")
    if sum(ord(letter) > 0x24F and letter not in _TYPOGRAPHY for letter in text) > 0:
        return Rejected("foreign characters")
    kept, cuts = _whole_sentences(text, max_words)
    kept, contradicted = _consistent(kept)
    cuts += ("contradiction",) * contradicted
    if sum(len(words(sentence)) for sentence in kept) < min_words:
        return Rejected("contradiction" if contradicted else "too short")
    whole = " ".join(kept)
    fault = _fault(whole, title, topic)
    return Rejected(fault) if fault else Cleaned(tuple(kept), sentiment(whole), cuts)


def _tidy(text: str) -> str:
    text = re.sub("[\u2018\u2019]", "'", text).replace("\u2026", "...")
    text = re.sub(r"[\"\u201c\u201d]", "", text)
    text = re.sub(r"\([^)]*\)", "", text)
    text = re.sub(r"\.{2,}", ".", text)
    text = re.sub(r"\s+([.,!?;:])", r"\1", text)
    return plain_text(text)


def _whole_sentences(text: str, max_words: int) -> tuple[list[str], tuple[str, ...]]:
    kept: list[str] = []
    count = 0
    for sentence in sentences(text):
        if len(kept) == MOST_SENTENCES:
            return kept, ("length",)
        if _CHAT.search(sentence):
            return kept, ("chat",)
        whole = sentence[-1] in ".?"
        candidate = sentence if whole else _first_clauses(sentence)
        if count + len(words(candidate)) > max_words:
            candidate = _first_clauses(candidate, max_words - count)
        if len(words(candidate)) >= 3 and not _EMPTY.match(candidate):
            kept.append(_capital(candidate))
            count += len(words(candidate))
        if candidate != sentence:
            return kept, ("clause",)
    return kept, ()


def _first_clauses(sentence: str, max_words: int = 1000) -> str:
    """A sentence up to its last clause boundary (the last clause may be torn) within `max_words`; may be empty."""
    parts = list(_CLAUSE.finditer(sentence))
    for boundary in reversed(parts):
        head = sentence[: boundary.start()].strip(_EDGES)
        if 4 <= len(words(head)) <= max_words and not _OPEN_END.search(head):
            return head + "."
    return ""


def _consistent(parts: list[str]) -> tuple[list[str], bool]:
    """The leading sentences whose clear sentiments agree."""
    direction = 0.0
    for place, part in enumerate(parts):
        score = sentiment(part)
        if abs(score) < _CLEAR:
            continue
        if direction * score < 0:
            return parts[:place], True
        direction = direction or score
    return parts, False


def _fault(text: str, title: str, topic: Iterable[str]) -> str | None:
    tokens = [word.lower() for word in words(text)]
    if set(tokens).isdisjoint(topic) and not (title and title.lower() in text.lower()):
        return "off topic"
    runs = Counter(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    if len(set(tokens)) < 0.55 * len(tokens) or (runs and runs.most_common(1)[0][1] > 1):
        return "repetition"
    if sum(letter.isdigit() for letter in (text.replace(title, "") if title else text)) > 4:
        return "figures"
    if any(len(token) > 20 for token in tokens) or re.search(r"[a-z][A-Z]|[.,][A-Za-z]", text):
        return "torn words"
    return None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
