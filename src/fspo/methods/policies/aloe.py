"""ALOE: a policy learns to align in the course of a conversation with a user (arXiv 2410.03642).

In each round the policy of the round before talks with simulated users (`fspo.methods.conversations`), `queries` turns
with each, and gives two answers in every turn: a plain one, which sees what the user has let be known so far, and one
that knows the user, which sees their description and `shots` other preferences of theirs. One of the two, drawn at
random, goes on in the conversation, so that the turns of many conversations are branches of one tree. Each turn is one
pair, the knowing answer over the plain one, given what was known in that turn: the loss is DPO's plus `pref_ft_weight`
times the negative log-likelihood of the knowing answer.

A user is by default a script over the responses of the data, and what it lets be known is a labelled preference. With
`endpoint` a language model plays the user by the description, as in the paper: what it lets be known is in its
messages, and the plain answer sees the conversation alone. In contrast to the paper, which fine-tunes its policy first
and uses DPO afterwards, both losses are trained together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from fspo.llm.endpoint_config import EndpointConfig
from fspo.methods.conversations import Conversation, ScriptedUsers, SimulatedUsers, hold, with_room
from fspo.methods.method import Method
from fspo.methods.played_users import MESSAGE_TOKENS, PlayedUsers, wording_of_prompts
from fspo.methods.round_settings import RoundSettings, in_rounds
from fspo.preferences.types import Episode, Preference, Turn
from fspo.training.config import Needs

if TYPE_CHECKING:
    from fspo.methods.one_round import Pairs, Round
    from fspo.modeling.rendering import Context

__all__ = ["ROWS", "AloeSettings"]


_KNOWS = "knows the user"
"""Why the chosen answer of a pair is chosen."""


class AloeSettings(RoundSettings):
    """Settings of ALOE."""

    needs: ClassVar[Needs] = {
        **RoundSettings.needs,
        "message_tokens": ("endpoint", lambda config: config.endpoint is not None),
    }

    endpoint: EndpointConfig | None = Field(
        default=None,
        description="An OpenAI-compatible endpoint whose model plays the users by their descriptions; null: scripted "
        "users.",
    )
    message_tokens: int = Field(
        default=MESSAGE_TOKENS,
        ge=1,
        description="endpoint: maximum tokens of a user's message, reasoning included.",
    )

    @property
    def shows_descriptions(self) -> bool:
        """The answer that knows the user is given it."""
        return True

    def endpoints(self) -> list[EndpointConfig]:
        """The one that plays users."""
        return [] if self.endpoint is None else [self.endpoint]

    def identity(self) -> dict[str, Any]:
        """Of the endpoint only what it answers matters, and what it is asked."""
        own = super().identity()
        played = {name: own.pop(name) for name in ("endpoint", "message_tokens")}
        if self.endpoint is None:
            return own
        asked = {"wording": wording_of_prompts(), "message_tokens": played["message_tokens"]}
        return {**own, "endpoint": {**self.endpoint.identity(), **asked}}


def _talk(one: Round) -> Pairs:
    """The turns of conversations: the answer that knows the user against the plain one."""
    from fspo.methods.one_round import Pairs

    config: AloeSettings = one.config
    turns = config.queries
    sampler = one.sampler()
    wanted = config.episodes or config.steps * config.users_per_step
    known = [sampler.episode(number) for number in range(-(-wanted // turns))]
    conversations = [Conversation(one.dataset.users[each.user], each.queries) for each in known]
    episodes: list[Episode] = []

    def answer(turn: int, _: Sequence[Conversation]) -> list[str]:
        rng = random.Random(f"{one.seed('branches')} {turn}")
        said = []
        for each, knowing, plain in zip(conversations, *_both_answers(one, turn, conversations, known), strict=True):
            source, question = {"label": _KNOWS}, each.questions[turn - 1].question
            asked = _asked(one, each)
            query = Preference.after(each.user.id, asked, knowing, plain, question=question, source=source)
            episodes.append(Episode(each.user.id, each.shown, (query,)))
            said.append(rng.choice((knowing, plain)))
        return said

    users = _users(one)
    hold(conversations, turns, answer, users)
    if isinstance(users, PlayedUsers):
        _count(one, users)
    return Pairs.of(episodes)


def _users(one: Round) -> SimulatedUsers:
    """The users' side of the conversations."""
    config, pool = one.config, one.job.endpoints
    if config.endpoint is None:
        return ScriptedUsers(one.job.judge())
    assert pool is not None, "who trains with an endpoint opens it"
    return PlayedUsers(
        partial(pool.open, config.endpoint),
        seed=one.seed("users"),
        max_tokens=config.message_tokens,
        progress=one.job.progress,
        once=one.once,
        folder=one.folder,
    )


def _count(one: Round, users: PlayedUsers) -> None:
    """Say how often the reply of the model that plays users could not be used."""
    failed = sum(bool(message.failure) for message in users.messages)
    if failed:
        one.job.progress.say(
            f"{one.job.method.name}, round {one.number}: {failed:,} of {len(users.messages):,} messages of played "
            "users could not be used, so that the question of the data was asked as it is."
        )


def _asked(one: Round, each: Conversation, description: str = "", context: Context | None = None) -> tuple[Turn, ...]:
    """What a policy is asked, with room for its answer."""
    if len(each.prompt) < 3:
        return each.prompt
    renderer = one.renderer if context is None else one.renderer.with_context(context)
    return with_room(renderer, each.prompt, description, reserve=one.config.max_new_tokens)


def _both_answers(
    one: Round, turn: int, conversations: Sequence[Conversation], known: Sequence[Episode]
) -> tuple[list[str], list[str]]:
    """To the next message of each conversation: an answer that knows the user, and a plain one."""
    from fspo.modeling.answering import Prompt

    plain = {str(place): Prompt(_asked(one, each), each.shown) for place, each in enumerate(conversations)}
    knowing = {
        str(place): Prompt(_asked(one, each, each.user.description, "both"), episode.shots, each.user.description)
        for place, (each, episode) in enumerate(zip(conversations, known, strict=True))
    }
    found = (
        one.answers(knowing, name=f"turn-{turn}-knowing", context="both"),
        one.answers(plain, name=f"turn-{turn}-plain"),
    )
    first, second = ([reply.text for reply in replies.values()] for replies in found)
    return first, second


ROWS = (
    Method(
        "aloe",
        "ALOE",
        "shots",
        ("dpo",),
        None,
        "start",
        "Conversations with simulated users: in every turn the answer that knows the user over the one that learns.",
        {"beta": 0.1, "pref_ft_weight": 0.2, "queries": 6},
        settings=AloeSettings,
        train=in_rounds(_talk),
    ),
)
