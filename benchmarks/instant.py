"""An endpoint that answers at once, in the process that asks: what is left is the work of asking.

It stands in the place of `fspo.llm.transport.WebTransport`, below the cache, the pacing, the budget and the accounts.
Every answer is a function of the request alone. The judge it plays follows a hidden utility of (description, response);
it finds a few pairs unclear, and names the first response of a few others in both orders.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fspo.llm.cache import key_of
from fspo.llm.parameters import Names
from fspo.llm.quoting import texts_of
from fspo.llm.replies import Read
from fspo.llm.types import Completion, CompletionRequest

__all__ = ["InstantTransport"]

_NOUNS = (
    "plot",
    "light",
    "water",
    "engine",
    "garden",
    "music",
    "river",
    "teacher",
    "bread",
    "window",
    "market",
    "winter",
    "street",
    "letter",
    "story",
    "bridge",
)
_VERBS = (
    "carries",
    "changes",
    "follows",
    "warms",
    "needs",
    "shows",
    "moves",
    "holds",
    "breaks",
    "keeps",
    "finds",
    "leaves",
    "brings",
    "shares",
    "lifts",
    "saves",
)
_OTHERS = (
    "old",
    "quiet",
    "bright",
    "small",
    "early",
    "patient",
    "careful",
    "open",
    "warm",
    "distant",
    "familiar",
    "simple",
)
_UNCLEAR, _BIASED, _LIKES_ALL = 0.02, 0.04, 0.02
"""Shares of pairs that are unclear and that are decided by their order; of portraits without a taste of their own."""


class InstantTransport:
    """Answers in no time, writes down every request that was answered, and how long that took."""

    def __init__(self, identity: Mapping[str, Any], log: Path) -> None:
        """Take the endpoint's identity, which is a part of a request's key; the keys are appended to `log`."""
        self._identity = identity
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.seconds = 0.0

    async def send(self, request: CompletionRequest, names: Names) -> Read:
        """Answer."""
        began = time.perf_counter()
        text = _answer(request)
        os.write(self._log, bytes.fromhex(key_of(self._identity, request)))
        self.seconds += time.perf_counter() - began
        return Read(Completion(text, len(text) // 4, "stop"), 100)


def _answer(request: CompletionRequest) -> str:
    said = request.messages[-1].content
    if "Two responses" in said:
        return f'{{"preferred": "{_preferred(said)}"}}'
    rng = random.Random(f"{request.seed}/{request.temperature}/{[m.content for m in request.messages]}")
    if "new questions of the same kind" in said:
        return "\n".join(f"{n}. Why does the {_clause(rng)} when the {_clause(rng)}?" for n in range(1, 12))
    if "clearly different viewpoints" in said:
        return "\n".join(f"{n}. Think of how the {_clause(rng)}" for n in range(1, 6))
    if "Write a short portrait" in said:
        taste = "likes whatever others like" if rng.random() < _LIKES_ALL else f"thinks that the {_clause(rng)}"
        return f"A person who {taste}. Someone for whom the {_clause(rng)}, and the {_clause(rng)}."
    if "A description of a user" in said:
        return f"This user believes that the {_clause(rng)}."
    return " ".join(f"The {_clause(rng)}, while the {_clause(rng)}." for _ in range(rng.choice((2, 3, 5))))


def _preferred(said: str) -> str:
    texts = texts_of(said)
    description, first, second = texts["description"], texts["first"], texts["second"]
    both = _share(description, *sorted((first, second)))
    if both < _UNCLEAR:
        return "unclear"
    if both < _UNCLEAR + _BIASED:
        return "A"
    whose = "" if "likes whatever others like" in description else description
    return "A" if _share(whose, first) > _share(whose, second) else "B"


def _share(*parts: str) -> float:
    """A number from 0 to 1 that depends on the texts."""
    return zlib.crc32("\n".join(parts).encode()) / 2**32


def _clause(rng: random.Random) -> str:
    words = rng.choice(_OTHERS), rng.choice(_NOUNS), rng.choice(_VERBS), rng.choice(_OTHERS), rng.choice(_NOUNS)
    return "{} {} {} the {} {}".format(*words)
