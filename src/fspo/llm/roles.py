"""Conversations for models that take no system role, as Gemma's chat template does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fspo.llm.types import Message

__all__ = ["without_system"]


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation, with the system's texts in front of the first user's text, a blank line between them.

    The last message of a request is a user's, so that there always is one.
    """
    system = [message.content for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    if first is not None:
        turns[first] = replace(turns[first], content="\n\n".join([*system, turns[first].content]))
    return tuple(turns)
