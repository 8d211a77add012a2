"""Log-prob-weighted preference: how probable it is that a language model that judges names the one or the other.

As in AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475) the first token of the judge's answer is looked at, which is
to be a letter: P(A) = p(A) / (p(A) + p(B)). Here both orders are asked and averaged, so that a liking for the first
place cancels: probability(a) = (P(A | a first) + P(B | b first)) / 2. Where the endpoint gives no log-probs, or the
first token is mostly something else than a letter, the answer is read as text instead and counts 1, 0 or 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from fspo.judging.pairwise import PairwiseJudge, Prompt, read_verdict
from fspo.judging.verdicts import SCORES, Comparison, Verdict
from fspo.llm.transport import Refusal
from fspo.llm.types import MOST_LOGPROBS, Completion, CompletionRequest, LanguageModel
from fspo.preferences.types import User
from fspo.progress import Task

__all__ = ["LETTER_TOKENS", "WeightedJudge", "letter_prompt", "read_weighted_verdict"]

LETTER_TOKENS = 4
"""Tokens that an answer may take, where nothing else is set."""
_LEAST_MASS = 0.5
"""Probability that both letters together need as a first token: below it, the letter stands somewhere else."""


class WeightedJudge(PairwiseJudge):
    """Asks a language model for a letter, once in each order, and takes the letters' probabilities."""

    def __init__(
        self, llm: LanguageModel, prompt: Prompt | None = None, *, max_tokens: int = LETTER_TOKENS, **settings: Any
    ) -> None:
        """Judge by `llm`; `prompt` asks for the letter A or B alone, and is `letter_prompt` by default."""
        super().__init__(llm, prompt or letter_prompt, max_tokens=max_tokens, **settings)

    @property
    def name(self) -> str:
        """The model's."""
        return f"{self.llm.name}, weighted, in both orders"

    def request(self, shown: Comparison) -> CompletionRequest:
        """What is asked about a pair in one order."""
        return replace(super().request(shown), logprobs=MOST_LOGPROBS)

    def read(self, answer: Completion, texts: Iterable[str] = ()) -> Verdict:
        """What an answer says of a pair as it was shown; `texts` are what the judge has read."""
        return read_weighted_verdict(answer, texts)

    def _answers(self, requests: Iterator[CompletionRequest], task: Task | None) -> Iterator[Completion]:
        """The answers; without the wish for log-probs where the server refuses that wish."""
        first = next(requests, None)
        if first is None:
            return iter(())
        count = MOST_LOGPROBS
        try:
            refused = self.llm.complete([first])[0].finish_reason == "refused"
        except Refusal:
            refused = True
        if refused and self.llm.complete([replace(first, logprobs=0)])[0].finish_reason != "refused":
            count = 0
        wanted = (replace(request, logprobs=count) for request in chain([first], requests))
        return super()._answers(wanted, task)


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


def read_weighted_verdict(answer: Completion, texts: Iterable[str] = ()) -> Verdict:
    """What a judge's answer says, by the log-probs of its first token where they tell, else by its text.

    `texts` are what the judge has read, see `read_verdict`.
    """
    read = read_verdict(answer, texts)
    if read.failure in ("refused", "reasoning", "failed"):
        return replace(read, without_log_probs=True)
    masses = {"a": 0.0, "b": 0.0}
    for token, log_prob in answer.first:
        letter = token.strip().lower()
        if letter in masses:
            masses[letter] += math.exp(log_prob)
    total = masses["a"] + masses["b"]
    if total >= _LEAST_MASS:
        chance = masses["a"] / total
        return Verdict("tie" if chance == 0.5 else "first" if chance > 0.5 else "second", probability=chance)
    return replace(read, probability=None if read.failure else SCORES[read.preferred], without_log_probs=True)
