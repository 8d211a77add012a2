"""Texts without markup."""

from __future__ import annotations

import re

__all__ = ["bare"]

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
