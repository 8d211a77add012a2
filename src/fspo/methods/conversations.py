"""Conversations with a user who lets their taste be known turn by turn (after ALOE, arXiv 2410.03642).

A user is scripted, or a language model plays the user (`fspo.methods.played_users`). In turn k a scripted user asks the
k-th of their questions and gets an answer. Then they say which response they would rather have had: the better of the
answer and of the response to this question that they like in the data. That is one labelled preference more, which the
model may see from turn k + 1 on, except where the same question is asked. So a policy gathers its shots from the
conversation itself.

ALOE's user is a language model with a persona, whose answers reveal it little by little, and a judge says from 1 to 5
how well an answer fits the persona. The script works over the responses of the data instead, and the level is computed
from comparisons with these by the judge of the data, so that it needs no network and contradicts itself nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import correlation, linear_regression
from typing import TYPE_CHECKING, Protocol

from fspo.errors import DataError
from fspo.judging.judge import Judge, can_judge
from fspo.judging.verdicts import SCORES
from fspo.preferences.sampling import related
from fspo.preferences.types import Preference, Turn, User

if TYPE_CHECKING:
    from fspo.modeling.rendering import EpisodeRenderer

__all__ = [
    "HIGHEST",
    "LOWEST",
    "Conversation",
    "ScriptedUsers",
    "SimulatedUsers",
    "Slope",
    "alignment_level",
    "alignment_slope",
    "hold",
    "normalised",
    "revealed",
    "with_room",
]

LOWEST, HIGHEST = 1.0, 5.0
"""Least and greatest alignment level."""


@dataclass
class Conversation:
    """A user, the questions that they will ask, and what was said so far."""

    user: User
    questions: tuple[Preference, ...]
    """One for each turn, with the response to it that the user likes and one that they don't."""
    answers: list[str] = field(default_factory=list)
    shots: list[Preference] = field(default_factory=list)
    """What a scripted user has let be known, the oldest first."""
    prompt: tuple[Turn, ...] = ()
    """What is answered next: the user's message, after what a played user and the assistant have said before."""

    @property
    def shown(self) -> tuple[Preference, ...]:
        """The shots that a model sees for the next answer: none shares a question, prompt or response pair with it.

        Users with fewer questions than turns ask some again, and their shots hold the response that they like to these.
        """
        asked = self.questions[len(self.answers)]
        # What is let be known holds a new answer, so that the question of the data says what it shares.
        return tuple(
            shot for shot, question in zip(self.shots, self.questions, strict=False) if not related(question, asked)
        )


class SimulatedUsers(Protocol):
    """The users' side of conversations."""

    def ask(self, turn: int, conversations: Sequence[Conversation]) -> None:
        """Set the prompt of each conversation for a turn, counted from 1."""

    def hear(self, turn: int, conversations: Sequence[Conversation]) -> None:
        """Take in the last answers of this turn."""


@dataclass(frozen=True)
class ScriptedUsers:
    """Users who ask the questions of the data, and say by a judge which response they would rather have had."""

    judge: Judge | None

    def ask(self, turn: int, conversations: Sequence[Conversation]) -> None:
        """Ask the next question, whatever was said before."""
        for one in conversations:
            one.prompt = one.questions[turn - 1].messages

    def hear(self, turn: int, conversations: Sequence[Conversation]) -> None:
        """Let a preference be known."""
        for one in conversations:
            one.shots.append(revealed(self.judge, one.user, one.questions[turn - 1], one.answers[-1]))


def revealed(judge: Judge | None, user: User, question: Preference, answer: str) -> Preference:
    """The preference that a user lets be known after an answer.

    If they like the answer better than their own response in the data, it is the answer over the other response;
    otherwise it is their own response over the answer. An answer without text, or equal to one of the two, teaches
    nothing beside the data's own preference. Without a judge who can judge for the user, no answer is liked better.
    """
    text = answer.strip()
    if not text or text in (question.chosen.strip(), question.rejected.strip()):
        return question
    if judge is None or not can_judge(judge, user, question.prompt):
        return replace(question, rejected=answer)
    better = judge.compare(user, question.prompt, answer, question.chosen) == "first"
    return replace(question, chosen=answer) if better else replace(question, rejected=answer)


def hold(
    conversations: Sequence[Conversation],
    turns: int,
    answer: Callable[[int, Sequence[Conversation]], Sequence[str]],
    users: SimulatedUsers,
) -> None:
    """Hold all conversations, turn by turn, and add to each what is said.

    `answer` gives for a turn, from 1, the answer to each conversation's prompt.
    """
    for turn in range(1, turns + 1):
        users.ask(turn, conversations)
        for one, text in zip(conversations, answer(turn, conversations), strict=True):
            one.answers.append(text)
        users.hear(turn, conversations)


def with_room(renderer: EpisodeRenderer, turns: Sequence[Turn], description: str, *, reserve: int) -> tuple[Turn, ...]:
    """The turns without the oldest questions and answers for which there is no room beside `reserve` tokens.

    Raises:
        DataError: the last message alone is too long.
    """
    left = tuple(turns)
    while True:
        try:
            renderer.render_prompt((), left, description, reserve=reserve)
        except DataError:
            if len(left) < 3:
                raise
            left = left[2:]
        else:
            return left


def alignment_level(judge: Judge, user: User, prompt: str, answer: str, others: Iterable[str]) -> float:
    """AL, from 1 to 5: where an answer stands among other responses to the prompt, by the user's taste.

    1 + 4 x the share of the others that the user likes less; a tie counts a half. An empty answer has 1.

    Raises:
        ValueError: there is no other response.
    """
    if not answer.strip():
        return LOWEST
    scores = [SCORES[judge.compare(user, prompt, answer, other)] for other in others]
    if not scores:
        raise ValueError("An alignment level needs other responses to compare with.")
    return LOWEST + (HIGHEST - LOWEST) * math.fsum(scores) / len(scores)


@dataclass(frozen=True)
class Slope:
    """The least-squares line through levels by turn."""

    slope: float
    """Levels for each turn."""
    r2: float
    """Share of the variance of the levels that the line explains; 0 where they don't vary."""


def alignment_slope(levels: Sequence[float | None]) -> Slope:
    """The line through AL(1), AL(2), ...: b = sum (k - k') (AL(k) - AL') / sum (k - k')^2, with means k' and AL'.

    A turn whose level is None is left out.

    Raises:
        ValueError: there are fewer than two levels.
    """
    known = [(turn, level) for turn, level in enumerate(levels, 1) if level is not None]
    if len(known) < 2:
        raise ValueError("A slope needs two turns or more.")
    turns, found = zip(*known, strict=True)
    varies = len(set(found)) > 1
    return Slope(linear_regression(turns, found).slope, correlation(turns, found) ** 2 if varies else 0.0)


def normalised(levels: Sequence[float]) -> list[float]:
    """The levels as shares of the way from the least to the greatest of them; all 0 where they are equal."""
    least, greatest = min(levels), max(levels)
    return [(level - least) / (greatest - least) if greatest > least else 0.0 for level in levels]
