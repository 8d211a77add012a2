"""How alike the two texts of an item are in what should not decide: format, length, number of points made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from fspo.preferences.markup import bare
from fspo.study.config import Matching

__all__ = ["alike", "as_shown", "closest", "points", "whole_sentences"]

_LIST_MARK = r"[^\S\n]*(?:[-*+•\u2013]|\(?\d{1,3}[.)])(?=\s|\Z)"
_POINT = re.compile(rf"^{_LIST_MARK}\s+\S", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u061f\u0964][\"'\u201d\u2019)\]*_]*(?=\s|$)")
_ONLY_MARK = re.compile(r"^[^\S\n]*(?:[-+•\u2013#>]\s*)*[*_]*\(?(?:\d{1,3}|[A-Za-z])[.)][*_]*\Z", re.MULTILINE)
_BREAK = re.compile(rf"\n[^\S\n]*\n\s*|\n(?={_LIST_MARK})")
"""Where a paragraph or an item of a list ends and another one begins."""


def as_shown(text: str, matching: Matching) -> str:
    """The text in the form in which participants see it; with `paragraphs` each item of a list is one."""
    if matching.format == "markdown":
        return text.strip()
    paragraphs = (bare(part) for part in _BREAK.split(text))
    return "\n\n".join(part for part in paragraphs if part)


def points(text: str) -> int:
    """How many points a text makes: the items of its lists, or its paragraphs if it has fewer than two items."""
    items = len(_POINT.findall(text))
    return items if items > 1 else len([part for part in _BREAK.split(text) if part.strip()])


def whole_sentences(text: str) -> str:
    """The text without its unfinished last sentence or list item, for an answer that reached its limit.

    A text without the end of a sentence or of an item stays as it is.
    """
    ends = [found.end() for found in _SENTENCE_END.finditer(text) if not _ONLY_MARK.search(text, 0, found.end())]
    return text[: max([*ends, *_item_ends(text)], default=len(text))]


def _item_ends(text: str) -> list[int]:
    """Where the items of a list end that something follows; an item that ends with a colon goes on."""
    breaks = list(_BREAK.finditer(text))
    begins = [0, *(found.end() for found in breaks)]
    blocks = [(found.start(), text[begin : found.start()]) for begin, found in zip(begins, breaks, strict=False)]
    return [end for end, block in blocks if _POINT.match(block) and not block.rstrip().endswith(":")]


def alike(first: str, second: str, matching: Matching) -> bool:
    """Whether two texts, as a model or a person wrote them, may be shown beside each other."""
    if matching.viewpoints and points(as_shown(first, matching)) != points(as_shown(second, matching)):
        return False
    return matching.length is None or _ratio(first, second) <= matching.length


def closest(firsts: Sequence[str], seconds: Sequence[str], matching: Matching) -> tuple[str, str]:
    """One text of each side: the pair that is most alike, of equals the one written earliest.

    Pairs that are `alike` come before all others, and then the one closest in length.
    """
    pairs = product(enumerate(firsts), enumerate(seconds))

    def rank(pair: tuple[tuple[int, str], tuple[int, str]]) -> tuple[bool, float, int]:
        (one, first), (other, second) = pair
        return not alike(first, second, matching), _ratio(first, second), one + other

    (_, first), (_, second) = min(pairs, key=rank)
    return first, second


def _ratio(first: str, second: str) -> float:
    """How many times as many words the longer text has."""
    shorter, longer = sorted((len(bare(first).split()), len(bare(second).split())))
    return longer / shorter if shorter else float("inf") if longer else 1.0
