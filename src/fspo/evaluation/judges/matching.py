"""Answers made alike in what should not decide: without markup, and of about the same length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fspo.evaluation.judges.win_rates import Answer
from fspo.preferences.markup import bare

__all__ = ["bared", "matched_in_length"]


def bared(answers: Sequence[Answer]) -> list[Answer]:
    """The answers with their texts bare."""
    return [replace(answer, text=bare(answer.text)) for answer in answers]


def matched_in_length(answers: Sequence[Answer], base: Mapping[str, Answer], band: float) -> list[Answer]:
    """Those of the answers whose length in characters is at most `band` times the base answer's, and the reverse."""

    def close(answer: Answer) -> bool:
        shorter, longer = sorted((len(answer.text), len(base[answer.item].text)))
        return longer <= band * shorter

    return [answer for answer in answers if close(answer)]
