"""Log-prob-weighted preference: how probable it is that a language model that judges names the one or the other.

As in AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475) the first token of the judge's answer is looked at, which is
to be a letter: P(A) = p(A) / (p(A) + p(B)). Here both orders are asked and averaged, so that a liking for the first
place cancels: preference(a) = (P(A | a first) + P(B | b first)) / 2. Where the endpoint gives no log-probs, or the
first token is mostly something else than a letter, the answer is read as text instead and counts 1, 0 or 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, tee

from fspo.identity import digest
from fspo.judging.judge import Verdict
from fspo.judging.pairwise import (
    Choice,
    Comparison,
    Judgement,
    Prompt,
    judgement_of,
    prompt_of,
    read_choice,
    with_limit,
)
from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.transport import Refusal
from fspo.llm.types import MOST_LOGPROBS, Completion, CompletionRequest, LanguageModel, Message, identity_of
from fspo.preferences.types import User

__all__ = ["LETTER_TOKENS", "Leaning", "WeightedJudge", "letter_prompt", "read_leaning"]

LETTER_TOKENS = 4
"""Tokens that an answer may take, where nothing else is set."""
_LEAST_MASS = 0.5
"""Probability that both letters together need as a first token: below it, the letter stands somewhere else."""


@dataclass(frozen=True)
class Leaning:
    """What one order says: a choice, and the probability of the response shown first."""

    choice: Choice
    first: float | None
    """None where nothing that could be read as a choice was answered."""
    weighed: bool
    """Whether `first` comes from log-probs."""
    text: str = ""
    """The answer, where it was read as text."""


class WeightedJudge:
    """Asks a language model for a letter, once in each order, and takes the letters' probabilities."""

    def __init__(
        self,
        llm: LanguageModel,
        prompt: Prompt | None = None,
        *,
        seed: int = 0,
        at_once: int = 1024,
        max_tokens: int = LETTER_TOKENS,
        setting: str = "max_tokens",
    ) -> None:
        """Judge by `llm`.

        Args:
            llm: who judges, at temperature 0.
            prompt: (user, question, first response, second response) -> what the judge reads; it asks for the letter A
                or B alone. By default `letter_prompt`. The texts come quoted (`prompt_of`).
            seed: handed on to the model.
            at_once: comparisons whose requests are held at a time.
            max_tokens: the most that an answer may take, reasoning included.
            setting: what that is called where it is set.
        """
        self._max_tokens, self._setting = max_tokens, setting
        self._llm, self._prompt, self._seed, self._at_once = llm, prompt or letter_prompt, seed, at_once

    @property
    def name(self) -> str:
        """The model's."""
        return f"{self._llm.name}, weighted, in both orders"

    @property
    def identity(self) -> str:
        """Tells judges of different words apart: the model, and all that it is asked of a pair."""
        asked = self.request(User("user", "DESCRIPTION"), "QUESTION", "FIRST", "SECOND").record()
        return f"asked {digest([identity_of(self._llm), asked], 64)}"

    def compare(self, user: User, prompt: str, a: str, b: str) -> Verdict:
        """Which response the user prefers; a tie where the two orders do not agree."""
        return next(self.judge([Comparison(user, prompt, a, b)])).verdict

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgement]:
        """Judge many pairs, in order; each with its `preference`, None where an order was refused or can't be read.

        Raises:
            ModelError: the model failed; see its `complete`.
        """
        asked, compared = tee(comparisons)
        requests = (
            self.request(c.user, c.prompt, first, second) for c in asked for first, second in ((c.a, c.b), (c.b, c.a))
        )
        answers = self._asked(requests)
        for c, *both in zip(compared, answers, answers, strict=True):
            with_a_first, with_b_first = (read_leaning(answer, c.texts) for answer in both)
            for leaning, pair in ((with_a_first, (c.a, c.b)), (with_b_first, (c.b, c.a))):
                if leaning.choice in ("unreadable", "reasoning"):
                    request = self.request(c.user, c.prompt, *pair)
                    mark_unusable(self._llm, request, replace(request, logprobs=0))
            preference = None
            if with_a_first.first is not None and with_b_first.first is not None:
                preference = (with_a_first.first + 1 - with_b_first.first) / 2
            found = judgement_of(with_a_first.choice, with_b_first.choice)
            unweighed = 2 - with_a_first.weighed - with_b_first.weighed
            unread = next((one.text for one in (with_a_first, with_b_first) if one.choice == "unreadable"), "")
            found = replace(found, preference=preference, unweighed=unweighed, unread=unread)
            yield with_limit(found, self._max_tokens, self._setting)

    def request(self, user: User, prompt: str, first: str, second: str) -> CompletionRequest:
        """What is asked about a pair in one order."""
        return CompletionRequest(
            (Message("user", prompt_of(self._prompt, user, prompt, first, second)),),
            max_tokens=self._max_tokens,
            temperature=0.0,
            seed=self._seed,
            logprobs=MOST_LOGPROBS,
        )

    def _asked(self, requests: Iterator[CompletionRequest]) -> Iterator[Completion]:
        """The answers; without the wish for log-probs where the server refuses that wish."""
        first = next(requests, None)
        if first is None:
            return iter(())
        count = MOST_LOGPROBS
        try:
            refused = self._llm.complete([first])[0].finish_reason == "refused"
        except Refusal:
            refused = True
        if refused and self._llm.complete([replace(first, logprobs=0)])[0].finish_reason != "refused":
            count = 0
        wanted = (replace(request, logprobs=count) for request in chain([first], requests))
        return ask_all(self._llm, wanted, 2 * self._at_once)


def letter_prompt(user: User, question: str, first: str, second: str) -> str:
    """What a judge reads that is to answer with a letter alone."""
    return f"""\
Two responses to a question are to be compared for one particular user.

The user: {user.description}

Question: {question}

Response A:
{first}

Response B:
{second}

Which of the two would this user prefer? Go by what the description says of the user, and by nothing else: neither \
by your own taste nor by which is longer. Answer with one letter only, A or B."""


def read_leaning(completion: Completion, texts: Iterable[str] = ()) -> Leaning:
    """What a judge's answer says, by the log-probs of its first token where they tell, else by its text.

    Args:
        completion: the answer.
        texts: what the judge has read (`read_choice`).
    """
    if completion.finish_reason in ("refused", "reasoning", "failed"):
        return Leaning(completion.finish_reason, None, False)
    masses = {"a": 0.0, "b": 0.0}
    for token, log_prob in completion.first:
        letter = token.strip().lower()
        if letter in masses:
            masses[letter] += math.exp(log_prob)
    total = masses["a"] + masses["b"]
    if total >= _LEAST_MASS:
        chance = masses["a"] / total
        choice: Choice = "unclear" if chance == 0.5 else "first" if chance > 0.5 else "second"
        return Leaning(choice, chance, True)
    read = read_choice(completion, texts)
    chances: dict[Choice, float] = {"first": 1.0, "second": 0.0, "unclear": 0.5}
    return Leaning(read, chances.get(read), False, completion.text)
