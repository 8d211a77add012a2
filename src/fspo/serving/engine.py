"""What the API asks of an engine, which answers people with a language model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fspo.preferences.types import Preference, Turn

__all__ = ["Engine", "EngineState", "GenerationRequest", "Piece"]


@dataclass(frozen=True)
class GenerationRequest:
    """An answer that somebody wants."""

    owner: str
    """Whose shots these are; nothing that is kept of them serves anybody else."""
    shots: tuple[Preference, ...]
    """The owner's labelled preferences, oldest first."""
    turns: tuple[Turn, ...]
    """An optional system message, then messages of user and assistant in turns, the user's first and last."""
    max_tokens: int
    temperature: float
    """0 takes the most probable token each time."""
    top_p: float
    stop: tuple[str, ...]
    """The answer ends before the first of these texts."""
    seed: int | None
    """The same seed gives the same answer, whatever other requests there are; None: a random seed."""
    personalised: bool
    """Whether the policy answers with the shots, or the base model without them."""
    description: str = ""
    """What the owner has written to describe themselves. It replaces the description that a policy writes; empty: the
    policy writes its own, if it writes any."""
    times_forgotten: int = 0
    """`Engine.times_forgotten` of the owner before the shots were read. If the owner was forgotten since, the request
    is answered, but nothing that it reads is kept."""


@dataclass(frozen=True)
class Piece:
    """The next part of an answer, with the counts so far."""

    text: str
    finish: Literal[None, "stop", "length"]
    """None: more pieces follow. `stop`: the model or a stop text ended the answer; `length`: `max_tokens` did."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Tokens of the prompt that did not have to be read again."""


@dataclass(frozen=True)
class EngineState:
    """How an engine is; nothing of it is of a user."""

    alive: bool
    """Whether it can answer."""
    model: str
    """Name of the model, without a folder."""
    waiting: int = 0
    """Requests that the model has not begun to read; 0 where another server has the queue."""


class Engine(Protocol):
    """Answers requests, many at once."""

    @property
    def reads_description(self) -> bool:
        """Whether the model reads the description that a user has written; a policy trained on shots alone does not."""

    def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        """The answer as it is written; the last piece has a `finish`. Closing the iterator cancels the request.

        Raises:
            FspoError: the request can't be answered; one sentence says why.
        """

    async def fits(
        self, shots: Sequence[Preference], turns: Sequence[Turn], max_tokens: int, description: str = ""
    ) -> int:
        """How many of the shots, the newest, have room beside description, turns and `max_tokens` tokens of an answer.

        Raises:
            DataError: the turns alone are too long, or they are no conversation.
        """

    def times_forgotten(self, owner: str) -> int:
        """How often the owner was forgotten; see `GenerationRequest`."""

    async def forget(self, owner: str) -> None:
        """Drop all that is kept of the owner's shots."""

    async def state(self) -> EngineState:
        """How the engine is, without waiting for the model."""

    async def close(self) -> None:
        """End all requests, and give the memory back."""
