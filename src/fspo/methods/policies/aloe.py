"""ALOE: a policy learns to align in the course of a conversation with a user (arXiv 2410.03642).

In each round the policy of the round before talks with scripted users (`fspo.methods.conversations`), `queries` turns
with each, and gives two answers in every turn: a plain one, which sees what the user has let be known so far, and one
that knows the user, which sees their description and `shots` other preferences of theirs. One of the two, drawn at
random, goes on in the conversation, so that the turns of many conversations are branches of one tree. Each turn is one
pair, the knowing answer over the plain one, given what was known in that turn: the loss is DPO's plus `pref_ft_weight`
times the negative log-likelihood of the knowing answer.

The paper's user is a language model with a persona, and its policy is fine-tuned first and gets DPO afterwards. Here
the user is a script over the responses of the data, what it lets be known is a labelled preference, and both losses
are trained together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fspo.methods.conversations import Conversation, hold
from fspo.methods.method import Job, Method
from fspo.methods.round_settings import RoundSettings
from fspo.preferences.types import Episode

if TYPE_CHECKING:
    from fspo.methods.rounds import Pairs, Round

__all__ = ["ROWS"]


_KNOWS = "knows the user"
"""Why the chosen answer of a pair is chosen."""


def _train(job: Job) -> Path:
    from fspo.methods.rounds import play

    return play(job, _talk)


def _talk(one: Round) -> Pairs:
    """The turns of conversations: the answer that knows the user against the plain one."""
    from fspo.methods.rounds import Pairs

    config: RoundSettings = one.config
    turns = config.queries
    sampler = one.setup.sampler(one.dataset, one.seed("episodes"), turns)
    wanted = config.episodes or config.steps * config.users_per_step
    known = [sampler.episode(number) for number in range(-(-wanted // turns))]
    conversations = [Conversation(one.dataset.users[each.user], each.queries) for each in known]
    episodes: list[Episode] = []

    def answer(turn: int, _: Sequence[Conversation]) -> list[str]:
        rng = random.Random(f"{one.seed('branches')} {turn}")
        said = []
        for each, knowing, plain in zip(conversations, *_both_answers(one, turn, conversations, known), strict=True):
            query = replace(each.questions[turn - 1], chosen=knowing, rejected=plain, source={"label": _KNOWS})
            episodes.append(Episode(each.user.id, tuple(each.shots), (query,)))
            said.append(rng.choice((knowing, plain)))
        return said

    hold(conversations, turns, answer, one.job.judge())
    return Pairs.of(episodes)


def _both_answers(
    one: Round, turn: int, conversations: Sequence[Conversation], known: Sequence[Episode]
) -> tuple[list[str], list[str]]:
    """To the next question of each conversation: an answer that knows the user, and a plain one."""
    from fspo.modeling.answering import Prompt

    questions = [each.questions[turn - 1].messages for each in conversations]
    plain = {
        str(place): Prompt(question, tuple(each.shots))
        for place, (question, each) in enumerate(zip(questions, conversations, strict=True))
    }
    knowing = {
        str(place): Prompt(question, episode.shots, one.dataset.users[episode.user].description)
        for place, (question, episode) in enumerate(zip(questions, known, strict=True))
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
        "Conversations with scripted users: in every turn the answer that knows the user over the one that learns.",
        {"beta": 0.1, "pref_ft_weight": 0.2, "queries": 6},
        settings=RoundSettings,
        train=_train,
    ),
)
