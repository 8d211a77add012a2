"""A language model that writes reviews by a script, for tests of restyled responses."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fspo.llm.types import Completion, CompletionRequest
from tests.synthesis.helpers import Stopped

__all__ = ["ScriptedReviewer"]

_GOOD = ("warm", "clever", "lovely", "moving", "brilliant", "funny", "beautiful", "charming", "superb", "wonderful")
_BAD = ("dull", "weak", "boring", "stupid", "awful", "terrible", "annoying", "bad", "sad", "poor")
_PARTS = ("plot", "ending", "cast", "music", "dialogue", "pacing", "hero", "setting", "script", "first act", "villain")


class ScriptedReviewer:
    """Writes what its persona was told to feel; each answer is a function of the request alone.

    Attributes:
        calls: the sizes of the batches asked for.
        stop_at: the call at which the model is killed.
    """

    name = "scripted"

    def __init__(self, stop_at: int | None = None, noise: float = 0.1) -> None:
        self.calls: list[int] = []
        self.stop_at = stop_at
        self.noise = noise

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One made-up review for each request."""
        if self.stop_at is not None and len(self.calls) == self.stop_at:
            raise Stopped
        self.calls.append(len(requests))
        return [self._complete(request) for request in requests]

    def _complete(self, request: CompletionRequest) -> Completion:
        rng = random.Random(f"{request}")
        if rng.random() < self.noise:
            return Completion(" %% <junk> user: what?", 5, "length")
        told = request.messages[0].content
        glad = any(word in told for word in ("love", "generous", "enjoyed", "moved", "fun"))
        feelings = rng.sample(_GOOD if glad else _BAD, 6)
        parts = rng.sample(_PARTS, 4)
        text = (
            f" really {feelings[0]} and {feelings[1]}. The {parts[0]} is {feelings[2]}. I found the {parts[1]} "
            f"{feelings[3]}, and the {parts[2]} is {feelings[4]} from the first scene to the last. The {parts[3]} is "
            f"also {feelings[5]}. And th"
        )
        return Completion(text, 40, "length")
