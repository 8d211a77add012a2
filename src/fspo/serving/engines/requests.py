"""Requests, checked and in the words of the rooms below."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fspo.errors import DataError
from fspo.preferences.types import Turn as Message
from fspo.preferences.types import as_turns
from fspo.serving.engine import GenerationRequest, Turn

__all__ = ["as_prompt", "check_request"]


def as_prompt(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """The turns of a request as a prompt.

    Raises:
        DataError: they are no conversation that can be answered; see `as_turns`.
    """
    for turn in turns:
        if turn.role not in ("system", "user", "assistant"):
            raise DataError(f"A message has the role '{turn.role}'; use system, user or assistant.")
    return as_turns(tuple(Message(turn.role, turn.content) for turn in turns))  # type: ignore[arg-type]


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
