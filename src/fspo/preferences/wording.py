"""When two texts are the same text: blanks, case and Unicode form don't count."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["is_blank", "spellings", "wording"]


@lru_cache(maxsize=1 << 13)
def wording(text: str) -> str:
    """What two questions have in common where they differ only in blanks, case or Unicode form.

    This is the caseless form that Unicode defines for identifiers (NFKC_Casefold: compatibility composition, full case
    folding, without invisible format characters), with each run of blanks as one space and none at the ends.
    """
    if text.isascii():  # most are, and these have one form
        return " ".join(text.casefold().split())
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", visible).casefold())
    # Composing may make letters that fold once more.
    return " ".join(unicodedata.normalize("NFKC", folded.casefold()).split())


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: no text, blanks, or invisible characters such as a zero-width space."""
    return all(letter.isspace() or unicodedata.category(letter) == "Cf" for letter in text)


def spellings(texts: Iterable[str]) -> list[tuple[str, ...]]:
    """The texts that are written in several ways: for each of them its ways, in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for text in texts:
        found.setdefault(wording(text), {})[text] = None
    return [tuple(ways) for ways in found.values() if len(ways) > 1]
