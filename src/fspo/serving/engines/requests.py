"""Checks of requests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fspo.errors import DataError
from fspo.preferences.types import Preference, Turn
from fspo.serving.engine import GenerationRequest

__all__ = ["CHARACTERS_OF_A_TOKEN", "check_length", "check_request", "within_reach"]

CHARACTERS_OF_A_TOKEN = 32
"""More than tokens have on average in any text, so what is longer needs no tokenizer to be too long."""


def check_request(request: GenerationRequest) -> None:
    """Check the settings of a request.

    Raises:
        DataError: one is out of its range.
    """
    ranges = [
        ("max_tokens", request.max_tokens >= 1, "at least 1"),
        ("temperature", 0 <= request.temperature < math.inf, "at least 0 and finite"),
        ("top_p", 0 < request.top_p <= 1, "above 0 and at most 1"),
    ]
    for name, fits, wanted in ranges:
        if not fits:
            raise DataError(f"{name} must be {wanted}, but it is {getattr(request, name)}.")


def check_length(turns: Sequence[Turn], max_length: int | None) -> None:
    """Check that the turns are not far longer than a model of `max_length` tokens reads.

    Raises:
        DataError: they are.
    """
    characters = sum(len(turn.text) for turn in turns)
    if max_length is not None and characters > CHARACTERS_OF_A_TOKEN * max_length:
        raise DataError(
            f"The messages have {characters:,} characters, and the model reads {max_length:,} tokens; shorten them."
        )


def within_reach(shots: Sequence[Preference], max_length: int | None) -> Sequence[Preference]:
    """The newest shots, without those that certainly have no room in `max_length` tokens."""
    if max_length is None:
        return shots
    left = CHARACTERS_OF_A_TOKEN * max_length
    for place in range(len(shots) - 1, -1, -1):
        one = shots[place]
        left -= sum(len(turn.text) for turn in one.messages) + len(one.chosen) + len(one.rejected)
        if left < 0:
            return shots[place + 1 :]
    return shots
