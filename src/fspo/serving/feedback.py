"""How use becomes preferences: thumbs, edits and regenerations of saved answers.

A preference compares two answers to one request, so one answer alone gives none:

    edit           the user's own version is chosen, and the answer rejected
    regeneration   the user asked again: the answer that they used is chosen, and the one before rejected
    thumbs         an answer with a thumb up is chosen, and one to the same request with a thumb down rejected

A thumb alone is saved with its answer, and waits for the other one. If a thumb changes, the preferences that followed
from it are deleted, and those that follow now are saved. Nothing is made up: an answer is never compared with one that
the user did not judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["MOST_PAIRS", "JudgedAnswer", "Origin", "Thumb", "ThumbPair", "thumb_pairs"]

Origin = Literal["comparison", "edit", "regeneration", "thumbs"]
"""How a user made a preference; `comparison`: they compared two responses."""
Thumb = Literal["up", "down", "none"]
MOST_PAIRS = 4
"""Preferences that follow from one thumb, so that one answer among many does not outweigh all others."""


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer and the user's thumb."""

    id: str
    text: str
    thumb: Thumb


@dataclass(frozen=True)
class ThumbPair:
    """A preference that follows from two thumbs."""

    chosen: JudgedAnswer
    rejected: JudgedAnswer

    @property
    def texts(self) -> tuple[str, str]:
        """The chosen text, and the rejected one."""
        return self.chosen.text, self.rejected.text

    @property
    def answers(self) -> tuple[str, str]:
        """Their ids."""
        return self.chosen.id, self.rejected.id


def thumb_pairs(judged: JudgedAnswer, others: Sequence[JudgedAnswer]) -> list[ThumbPair]:
    """The preferences that follow from an answer's thumb.

    The others are the user's answers to the same request that have a thumb, newest first.
    """
    if judged.thumb == "none":
        return []
    opposite = "down" if judged.thumb == "up" else "up"
    found: dict[str, JudgedAnswer] = {}
    for other in others:
        if other.thumb == opposite and other.text.strip() not in ("", judged.text.strip()):
            found.setdefault(other.text.strip(), other)
    if not judged.text.strip():
        return []
    pairs = [(judged, other) if judged.thumb == "up" else (other, judged) for other in found.values()]
    return [ThumbPair(*pair) for pair in pairs[:MOST_PAIRS]]
