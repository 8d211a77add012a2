"""The questions that a server asks its users, and which of them to ask next."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fspo.errors import ConfigError
from fspo.identity import digest
from fspo.preferences.response_pair import ResponsePair
from fspo.preferences.types import Preference
from fspo.preferences.wording import wording
from fspo.serving.questions import Belief, Floats, choose_question, information_gains

__all__ = ["NextQuestion", "QuestionBank", "question_id"]


@dataclass(frozen=True)
class NextQuestion:
    """What to ask a person."""

    id: str
    question: ResponsePair
    gain: float
    """How much information the answer is expected to give, in bits: 0 to 1."""


def question_id(question: ResponsePair) -> str:
    """The same for the same texts."""
    return f"question_{digest([question.prompt, question.first, question.second])[:24]}"


class QuestionBank:
    """Q questions, and U plausible users with a known chance to prefer the first response to each."""

    def __init__(self, questions: Sequence[ResponsePair], chances: Floats) -> None:
        """Begin without knowing anything of anybody; for the chances see `Belief`.

        Raises:
            ConfigError: the chances are not those of these questions.
        """
        self._belief = Belief(chances)
        if chances.shape[1] != len(questions):
            raise ConfigError(f"There are {len(questions):,} questions, but chances for {chances.shape[1]:,}.")
        self._questions = tuple(questions)
        self._ids = [question_id(question) for question in questions]
        self._numbers = {_key(one.prompt, one.first, one.second): place for place, one in enumerate(questions)}

    def next(self, preferences: Sequence[Preference], skip: Collection[str] = ()) -> NextQuestion | None:
        """The question whose answer tells most of a person, on a prompt that is not asked yet; None if none is left.

        Their preferences come oldest first; those on other pairs than the bank's tell nothing here. The prompts of the
        questions to skip, which are named by id, are not asked.
        """
        answers: dict[int, bool] = {}
        for one in preferences:
            number = self._numbers.get(_key(one.prompt, one.chosen, one.rejected))
            if number is not None:
                answers[number] = one.chosen != self._questions[number].first
        belief = self._belief
        for number, second in answers.items():
            belief = belief.answered(number, second=second)
        closed = {wording(one.prompt) for one in preferences}
        closed |= {wording(one.prompt) for one, name in zip(self._questions, self._ids, strict=True) if name in skip}
        asked = [place for place, one in enumerate(self._questions) if wording(one.prompt) in closed]
        chosen = choose_question(belief, asked)
        if chosen is None:
            return None
        gain = max(0.0, float(information_gains(belief)[chosen])) / math.log(2)
        return NextQuestion(self._ids[chosen], self._questions[chosen], gain)


def _key(prompt: str, one: str, other: str) -> tuple[str, frozenset[str]]:
    return wording(prompt), frozenset((one, other))
