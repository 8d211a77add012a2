"""Users that a language model plays, who let their taste be known bit by bit (ALOE, arXiv 2410.03642).

In each turn the model gets the user's description, what was said so far and the user's next question of the data. It
writes the user's message: a word on the last answer, which shows a little of what the user likes, and the question in
the user's own words. The assistant sees the conversation and nothing else of the user. Afterwards the same model says
from 1 to 5 how well each answer fits the user.

A reply that can't be used stops nothing. In the place of a message the question of the data is asked as it is, and an
answer without a level is left out. Both are counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from fspo.errors import DataError
from fspo.identity import digest
from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.replies import only_object
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Message
from fspo.methods.conversations import HIGHEST, LOWEST, Conversation
from fspo.preferences.types import Turn, transcript
from fspo.progress import Progress, Silent
from fspo.records import KeyedLog
from fspo.synthesis.domain_files import read_yaml
from fspo.synthesis.templates import Template

__all__ = ["MESSAGE_TOKENS", "PlayedUsers", "Rating", "SpokenMessage", "read_level", "wording_of_prompts"]

T = TypeVar("T")

MESSAGE_TOKENS = 200
"""Tokens that a reply may take, where nothing else is set."""
_LONGEST = 2000
"""Characters of a message that is used."""
_AT_ONCE = 256
_NOTHING_SAID = "Nothing yet."
_LEVEL = re.compile(r'"level"\s*:\s*"?([1-5])(?:\.0)?"?\s*[,}]')
_PLANTED = re.compile(r"level\W*[:=]", re.IGNORECASE)


@dataclass(frozen=True)
class SpokenMessage:
    """What a played user said in a turn."""

    user: str
    turn: int
    text: str
    failure: str = ""
    """Why the reply could not be used, so that the question of the data was asked as it is."""


@dataclass(frozen=True)
class Rating:
    """How well an answer fits the user."""

    user: str
    turn: int
    level: float | None
    """From 1 to 5; None where the reply could not be used."""
    failure: str = ""


def _at_once(compute: Callable[[], T]) -> T:
    return compute()


@dataclass
class PlayedUsers:
    """Plays the users of conversations.

    Attributes:
        open: gives the model; it is called only where the model is asked.
        seed: of all requests.
        max_tokens: of a reply, reasoning included.
        temperature: of messages; ratings have 0.
        progress: shows how far they are.
        once: computes something once for all processes.
        folder: keeps the messages of each turn, so that the same call says the same again, even where a request had
            failed and would not fail now; None: they are not kept.
        messages: what was said, turn after turn.
    """

    open: Callable[[], LanguageModel]
    seed: int = 0
    max_tokens: int = MESSAGE_TOKENS
    temperature: float = 0.7
    progress: Progress = field(default_factory=Silent)
    once: Callable[[Callable[[], Any]], Any] = _at_once
    folder: Path | None = None
    messages: list[SpokenMessage] = field(default_factory=list)

    def ask(self, turn: int, conversations: Sequence[Conversation]) -> None:
        """Let every user say something in this turn, counted from 1.

        Raises:
            DataError: a user has no description.
            ModelError: the model failed; see its `complete`.
        """
        said = self.once(lambda: self._kept_messages(turn, conversations))
        self.messages += said
        for one, message in zip(conversations, said, strict=True):
            one.prompt = (*_said(one), Turn("user", message.text))

    def hear(self, turn: int, conversations: Sequence[Conversation]) -> None:
        """Say nothing: what a user thinks of an answer comes with the next message."""

    def rate(self, conversations: Sequence[Conversation]) -> list[Rating]:
        """How well each answer fits its user, conversation after conversation.

        Raises:
            ModelError: the model failed; see its `complete`.
        """
        rated = [
            (one.user, turn, one.prompt[2 * turn - 2].text, answer)
            for one in conversations
            for turn, answer in enumerate(one.answers, 1)
        ]
        requests = [
            self._request("rate", 0.0, description=user.description, question=message, answer=answer)
            for user, _, message, answer in rated
            if answer.strip()
        ]
        model = self.open()
        replies = iter(self._replies(model, requests, "Rating answers for played users"))
        found = []
        for user, turn, message, answer in rated:
            if not answer.strip():
                found.append(Rating(user.id, turn, LOWEST))
                continue
            request, reply = next(replies)
            level = None if reply.missing else read_level(reply.text, (user.description, message, answer))
            if level is None:
                mark_unusable(model, request)
            found.append(Rating(user.id, turn, level, reply.missing or ("" if level is not None else "unreadable")))
        return found

    def _kept_messages(self, turn: int, conversations: Sequence[Conversation]) -> list[SpokenMessage]:
        if self.folder is None:
            return self._messages(turn, conversations)
        log = KeyedLog(self.folder / f"turn-{turn}-messages.jsonl", SpokenMessage)
        wanted = {str(place): one for place, one in enumerate(conversations)}
        return log.complete(wanted, lambda some: self._messages(turn, some), batch=len(wanted))

    def _messages(self, turn: int, conversations: Sequence[Conversation]) -> list[SpokenMessage]:
        requests = [self._next_message(turn, one) for one in conversations]
        model, found = self.open(), []
        replies = self._replies(model, requests, f"Messages of played users, turn {turn}")
        for one, (request, reply) in zip(conversations, replies, strict=True):
            text, failure = reply.text.strip(), reply.missing
            if not failure and not text:
                failure = "no text"
            elif not failure and len(text) > _LONGEST:
                failure = "too long"
            if failure:
                mark_unusable(model, request)
                text = one.questions[turn - 1].prompt
            found.append(SpokenMessage(one.user.id, turn, text, failure))
        return found

    def _replies(
        self, model: LanguageModel, requests: Sequence[CompletionRequest], title: str
    ) -> list[tuple[CompletionRequest, Completion]]:
        with self.progress.task(title, len(requests), 0) as task:
            return list(zip(requests, ask_all(model, iter(requests), _AT_ONCE, task), strict=True))

    def _next_message(self, turn: int, one: Conversation) -> CompletionRequest:
        if not one.user.description.strip():
            raise DataError(
                f"User '{one.user.id}' has no description, so no language model can play this user; describe the users "
                "in the data, or leave out the endpoint that plays them."
            )
        said, question = _said(one), one.questions[turn - 1].prompt
        return self._request(
            "speak",
            self.temperature,
            description=one.user.description,
            conversation=transcript(said) if said else _NOTHING_SAID,
            question=question,
        )

    def _request(self, prompt: str, temperature: float, **texts: str) -> CompletionRequest:
        message = Message("user", _template(prompt).ask(texts))
        return CompletionRequest((message,), max_tokens=self.max_tokens, temperature=temperature, seed=self.seed)


def _said(one: Conversation) -> tuple[Turn, ...]:
    """What was said so far. A turn can't be empty, so that an answer without text is a pause."""
    return (*one.prompt, Turn("assistant", one.answers[-1].strip() or "...")) if one.answers else ()


def read_level(text: str, shown: Sequence[str] = ()) -> float | None:
    """The level that a reply gives: the last JSON object with a level from 1 to 5, or a number alone; None for none.

    Where one of the texts `shown` to the model holds something like a level, the reply must be nothing but the object,
    since the model may quote it.
    """
    if _PLANTED.search(text) and any(map(_PLANTED.search, shown)):
        try:
            return _in_bounds(float(only_object(text)["level"]))
        except (KeyError, TypeError, ValueError):
            return None
    if levels := _LEVEL.findall(text):
        return float(levels[-1])
    plain = text.strip().strip("\"'.*")
    return _in_bounds(float(plain)) if re.fullmatch(r"\d", plain, re.ASCII) else None


def wording_of_prompts() -> str:
    """A digest that differs for another wording of what the model is asked."""
    return digest(_prompts())


def _in_bounds(level: float) -> float | None:
    return level if LOWEST <= level <= HIGHEST else None


_VARIABLES = {
    "speak": frozenset({"description", "conversation", "question"}),
    "rate": frozenset({"description", "question", "answer"}),
}


@cache
def _prompts() -> dict[str, str]:
    found: dict[str, str] = read_yaml(files("fspo.methods").joinpath("played_users.yaml"))
    return found


def _template(name: str) -> Template:
    return Template(_prompts()[name], _VARIABLES[name], f"played_users.yaml: {name}", _VARIABLES[name])
