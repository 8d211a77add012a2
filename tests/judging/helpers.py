"""Judgements for tests, in few words."""

from __future__ import annotations

from typing import get_args

from fspo.judging.verdicts import Failure, Judgement, Preferred, Verdict

__all__ = ["said"]


def said(one: Preferred | Failure, other: Preferred | Failure, probability: float | None = None) -> Judgement:
    """A judgement of what is said in each order; `probability` is that of the first response."""
    first, second = (
        Verdict("tie", word) if word in get_args(Failure) else Verdict(word)  # type: ignore[arg-type]
        for word in (one, other)
    )
    if probability is not None:
        first, second = (
            Verdict(first.preferred, probability=probability),
            Verdict(second.preferred, probability=1 - probability),
        )
    return Judgement((first, second))
