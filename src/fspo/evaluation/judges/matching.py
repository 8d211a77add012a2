"""Answers made alike in what should not decide: without markup, and of about the same length."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fspo.evaluation.judges.win_rates import Answer

__all__ = ["bare", "bared", "matched_in_length"]

_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)
_RULE = re.compile(r"^\s*(?:[-*_=]\s*){3,}$", re.MULTILINE)
_MARK = re.compile(r"^\s*(?:(?:[-*+•\u2013]|\(?\d{1,3}[.)]|#{1,6}|>)\s+)+", re.MULTILINE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_TABLE = re.compile(r"\s*\|\s*")
_EMPHASIS = re.compile(r"\*\*|__|~~|`|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)")


def bare(text: str) -> str:
    """The wording in one paragraph: no bullets, numbers, headings, emphasis, code marks, links, tables or emoji."""
    if not text.isascii():
        import emoji

        text = emoji.replace_emoji(text, "")
    for pattern, instead in ((_FENCE, ""), (_RULE, ""), (_MARK, ""), (_LINK, r"\1"), (_TABLE, " "), (_EMPHASIS, "")):
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def bared(answers: Sequence[Answer]) -> list[Answer]:
    """The answers with their texts bare."""
    return [replace(answer, text=bare(answer.text)) for answer in answers]


def matched_in_length(answers: Sequence[Answer], base: Mapping[str, Answer], band: float) -> list[Answer]:
    """Those of the answers whose length in characters is at most `band` times the base answer's, and the reverse."""

    def close(answer: Answer) -> bool:
        shorter, longer = sorted((len(answer.text), len(base[answer.item].text)))
        return longer <= band * shorter

    return [answer for answer in answers if close(answer)]
