"""When two texts are the same text: blanks, case and the way a letter is composed don't count."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["is_blank", "spellings", "wording"]


class _UsualLetters(dict[int, str]):
    """The usual form of each letter that occurred: of single letters, so no text stays in memory."""

    def __missing__(self, code: int) -> str:
        """Look a letter up that has not occurred yet."""
        found = self[code] = _usual(chr(code))
        return found


_USUAL = _UsualLetters()


def wording(text: str) -> str:
    """What two questions have in common where they differ only in blanks, case or Unicode form.

    This is the canonical caseless form of Unicode (full case folding, then NFC), without invisible format characters,
    with letters of full or half width as usual ones, with each run of blanks as one space and none at the ends. Other
    compatibility forms stay apart: 2⁵ is not 25.
    """
    if text.isascii():  # most are, and these have one form
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFD", text.translate(_USUAL)).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def _usual(letter: str) -> str:
    """The letter as it is usually written; nothing for an invisible one."""
    if unicodedata.category(letter) == "Cf":
        return ""
    has_width = unicodedata.decomposition(letter).startswith(("<wide>", "<narrow>"))
    return unicodedata.normalize("NFKC", letter) if has_width else letter


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: no text, blanks, or invisible characters such as a zero-width space."""
    return all(letter.isspace() or unicodedata.category(letter) == "Cf" for letter in text)


def spellings(texts: Iterable[str]) -> list[tuple[str, ...]]:
    """The texts that are written in several ways: for each of them its ways, in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for text in texts:
        found.setdefault(wording(text), {})[text] = None
    return [tuple(ways) for ways in found.values() if len(ways) > 1]
