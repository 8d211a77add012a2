"""The user-aware pairwise judge: a language model that reads a description of the user, asked in both orders.

A pair is decided where both orders agree (FSPO, arXiv 2502.19312, section 5); anything else is kept apart with its
reason. How often the orders agree, and how often the first place wins, tells how far the decided ones can be trusted.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import tee
from typing import Literal

from fspo.errors import DataError
from fspo.identity import digest
from fspo.judging.judge import Verdict
from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.quoting import Quotation, quoted
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Message, identity_of
from fspo.preferences.types import User
from fspo.progress import Scaled, Task

__all__ = [
    "ANSWER_TOKENS",
    "Choice",
    "Comparison",
    "Judgement",
    "OrderTally",
    "PairwiseJudge",
    "Prompt",
    "Reason",
    "judgement_of",
    "prompt_of",
    "read_choice",
    "readable",
    "with_limit",
]

Choice = Literal["first", "second", "unclear", "unreadable", "refused", "reasoning", "failed"]
"""What one answer of the judge says, or why there is none."""

Reason = Literal["", "inconsistent", "unclear", "unreadable", "refused", "reasoning", "failed"]
"""Why a pair is not decided; empty where it is."""

Prompt = Callable[[User, str, str, str], str]
"""(user, question, first response, second response) -> what a judge reads; all texts come quoted (`prompt_of`)."""

ANSWER_TOKENS = 48
"""Tokens that an answer may take, where nothing else is set."""
_FEW, _ENOUGH = 8, 100
"""Pairs from which a judge can be told to be unreadable: when there are no more, and at the latest."""
_SHOWN = 200
"""Characters of an answer that are shown, at most."""
_PREFERRED = re.compile(r'"preferred"\s*:\s*"([^"{}]{1,20})"\s*[,}]')
_OBJECT = re.compile(r"\s*(?:```(?:json)?)?\s*(\{.*\})[\s`.]*", re.DOTALL)
_PLANTED = re.compile(r"preferred\W*[:=]", re.IGNORECASE)
_LETTER = re.compile(r"\W*(?:answer|response|option)?\W*([AB])\b(?!['\u2019])[\W_]*$", re.IGNORECASE)
_CHOICES: dict[str, Choice] = {"a": "first", "b": "second", "unclear": "unclear", "tie": "unclear"}


@dataclass(frozen=True)
class Comparison:
    """Two responses to put before a user's judge."""

    user: User
    prompt: str
    a: str
    b: str

    @property
    def texts(self) -> tuple[str, ...]:
        """All that a judge reads of other people's words."""
        return self.user.description, self.prompt, self.a, self.b


@dataclass(frozen=True)
class Judgement:
    """What came of a comparison, in both orders."""

    verdict: Verdict
    reason: Reason
    choices: tuple[Choice, Choice]
    """With `a` shown first, and with `b` shown first."""
    preference: float | None = None
    """The probability that `a` is preferred, mean over both orders; None where the judge gives none."""
    unweighed: int = 0
    """Orders in which a judge that weighs had no log-probs to go by."""
    unread: str = ""
    """An answer that could not be read, if there was one."""
    used_up: str = ""
    """The limit that was used up by reasoning before there was an answer, if it was: in words, with its setting."""


@dataclass
class OrderTally:
    """How the two orders of many pairs compare; counts of pairs that were read in both."""

    agreed: int = 0
    disagreed: int = 0
    first: int = 0
    """Answers, two to a pair, for the response shown first."""
    undecided: Counter[str] = field(default_factory=Counter)
    """Reason -> pairs."""

    def add(self, judgement: Judgement) -> None:
        """Count one pair."""
        if judgement.reason:
            self.undecided[judgement.reason] += 1
        if set(judgement.choices) <= {"first", "second"}:
            self.first += judgement.choices.count("first")
            self.agreed += not judgement.reason
            self.disagreed += bool(judgement.reason)

    @property
    def read(self) -> int:
        """Pairs that were read in both orders."""
        return self.agreed + self.disagreed

    @property
    def agreement(self) -> float:
        """Share of the pairs read where both orders name the same response; NaN for none."""
        return self.agreed / self.read if self.read else math.nan

    @property
    def first_share(self) -> float:
        """Share of the answers for the response shown first: 0.5 for a judge without order bias; NaN for none."""
        return self.first / (2 * self.read) if self.read else math.nan

    @property
    def accuracy(self) -> float:
        """Estimated share of the decided pairs that are decided as the judge means it, 0.5 to 1; NaN for none.

        If the better response is named with probability x when shown first and 1 - y when shown second, independently
        and alike for all pairs, then first_share = (x + y) / 2 and agreement = x (1 - y) + (1 - x) y; both are solved
        for x and y, and x (1 - y) / agreement of the pairs that agree are right.
        """
        if not self.agreed:
            return math.nan
        share, agreement = self.first_share, self.agreement
        spread = math.sqrt(max(0.0, share * share - share + agreement / 2))
        x, y = min(1.0, share + spread), max(0.0, share - spread)
        return min(1.0, max(0.5, x * (1 - y) / agreement))


class PairwiseJudge:
    """Asks a language model which of two responses a user prefers, once in each order."""

    def __init__(
        self,
        llm: LanguageModel,
        prompt: Prompt,
        *,
        seed: int = 0,
        at_once: int = 1024,
        max_tokens: int = ANSWER_TOKENS,
        setting: str = "max_tokens",
    ) -> None:
        """Judge by `llm`.

        Args:
            llm: who judges, at temperature 0.
            prompt: (user, question, first response, second response) -> what the judge reads. It asks for the JSON
                {"preferred": "A"}, where A is the first, B the second, and "unclear" is allowed. The texts, and the
                user's description, come quoted (`prompt_of`).
            seed: handed on to the model.
            at_once: comparisons whose requests are held at a time.
            max_tokens: the most that an answer may take, reasoning included.
            setting: what that is called where it is set.
        """
        self._max_tokens, self._setting = max_tokens, setting
        self._llm, self._prompt, self._seed, self._at_once = llm, prompt, seed, at_once

    @property
    def name(self) -> str:
        """The model's."""
        return f"{self._llm.name} in both orders"

    @property
    def identity(self) -> str:
        """Tells judges of different words apart: the model, and all that it is asked of a pair."""
        asked = self.request(User("user", "DESCRIPTION"), "QUESTION", "FIRST", "SECOND").record()
        return f"asked {digest([identity_of(self._llm), asked], 64)}"

    def compare(self, user: User, prompt: str, a: str, b: str) -> Verdict:
        """Which response the user prefers; a tie where the two orders do not agree."""
        return next(self.judge([Comparison(user, prompt, a, b)])).verdict

    def judge(self, comparisons: Iterable[Comparison], task: Task | None = None) -> Iterator[Judgement]:
        """Judge many pairs, in order; `task` is advanced by one for each.

        Raises:
            ModelError: the model failed; see its `complete`.
        """
        asked, compared = tee(comparisons)
        requests = (
            self.request(c.user, c.prompt, first, second) for c in asked for first, second in ((c.a, c.b), (c.b, c.a))
        )
        counted = None if task is None else Scaled(task, 0.5)
        answers = ask_all(self._llm, requests, 2 * self._at_once, counted)
        for c, with_a_first, with_b_first in zip(compared, answers, answers, strict=True):
            found = judgement_of(read_choice(with_a_first, c.texts), read_choice(with_b_first, c.texts))
            asked_again = ((c.a, c.b), (c.b, c.a))
            for choice, pair in zip(found.choices, asked_again, strict=True):
                if choice in ("unreadable", "reasoning"):
                    mark_unusable(self._llm, self.request(c.user, c.prompt, *pair))
            answer = with_a_first if found.choices[0] == "unreadable" else with_b_first
            found = replace(found, unread=answer.text) if "unreadable" in found.choices else found
            yield with_limit(found, self._max_tokens, self._setting)

    def request(self, user: User, prompt: str, first: str, second: str) -> CompletionRequest:
        """What is asked about a pair in one order."""
        return CompletionRequest(
            (Message("user", prompt_of(self._prompt, user, prompt, first, second)),),
            max_tokens=self._max_tokens,
            temperature=0.0,
            seed=self._seed,
        )


def prompt_of(prompt: Prompt, user: User, question: str, first: str, second: str) -> str:
    """What a judge reads: the prompt with all texts quoted, so that none can pose as another or as the prompt.

    Texts that the prompt does not show bear on nothing in it.
    """
    texts = {"description": user.description, "question": question, "first": first, "second": second}
    quotation, asked = _quoting(prompt, user, texts)
    shown = {name: text for name, text in texts.items() if f"<{name}-{quotation.fence}>" in asked}
    if len(shown) < len(texts):
        quotation, asked = _quoting(prompt, user, shown)
    return f"{quotation.notice}\n\n{asked}" if shown else asked


def _quoting(prompt: Prompt, user: User, texts: Mapping[str, str]) -> tuple[Quotation, str]:
    quotation = quoted(texts)
    description, *others = (quotation.texts.get(name, "") for name in ("description", "question", "first", "second"))
    return quotation, prompt(replace(user, description=description), *others)


def read_choice(completion: Completion, texts: Iterable[str] = ()) -> Choice:
    """What a judge's answer says: a JSON object with "preferred", or one letter alone; anything else is unreadable.

    Args:
        completion: the answer.
        texts: what the judge has read. Where one of them holds an answer of this form, the judge may quote it, and only
            an answer that is nothing but the object is read.
    """
    if completion.finish_reason in ("refused", "reasoning", "failed"):
        return completion.finish_reason
    if _PLANTED.search(completion.text) and any(map(_PLANTED.search, texts)):
        return _CHOICES.get(_stated(completion.text).strip().lower(), "unreadable")
    found = _PREFERRED.findall(completion.text)
    if found:  # thoughts may quote the other ways to answer first
        return _CHOICES.get(found[-1].strip().lower(), "unreadable")
    letter = _LETTER.match(completion.text.strip())
    if letter:
        return _CHOICES[letter[1].lower()]
    return "unclear" if completion.text.strip().strip("\"'.").lower() == "unclear" else "unreadable"


def _stated(answer: str) -> str:
    """What an answer that is one JSON object, and nothing else, says is preferred; empty for any other."""
    found = _OBJECT.fullmatch(answer)
    try:
        stated = json.loads(found[1]) if found else {}
    except (ValueError, RecursionError):
        return ""
    return str(stated.get("preferred", ""))


def judgement_of(with_a_first: Choice, with_b_first: Choice) -> Judgement:
    """What both orders together say."""
    choices = with_a_first, with_b_first
    reason = _reason(choices)
    verdict: Verdict = "tie" if reason else ("a" if with_a_first == "first" else "b")
    return Judgement(verdict, reason, choices)


def _reason(choices: Sequence[Choice]) -> Reason:
    reasons: tuple[Reason, ...] = ("failed", "refused", "reasoning", "unreadable", "unclear")
    for reason in reasons:
        if reason in choices:
            return reason
    return "inconsistent" if choices[0] == choices[1] else ""


def with_limit(found: Judgement, max_tokens: int, setting: str) -> Judgement:
    """The same, with the limit that was used up by reasoning, where it was."""
    if "reasoning" not in found.choices:
        return found
    return replace(found, used_up=f"{setting}, which is {max_tokens:,}")


def readable(
    judgements: Iterable[Judgement], remedy: str, *, before: int = 0, whole: bool = True
) -> Iterator[Judgement]:
    """The judgements as they come, as long as the first of them are not all unreadable in both orders.

    Args:
        judgements: of one judge.
        remedy: how to fix it.
        before: how many were unreadable before these, and none was read.
        whole: whether these are all there are, so that few of them tell too.

    Raises:
        DataError: they are all unreadable, and so the rest would be: with one of the answers.
    """
    read, count, last = False, before, None
    for judgement in judgements:
        read = read or not set(judgement.choices) <= {"unreadable", "reasoning"}
        count, last = count + 1, judgement
        if count >= _ENOUGH and not read:
            raise _unreadable(count, judgement, remedy)
        yield judgement
    if whole and last is not None and not read and count >= _FEW:
        raise _unreadable(count, last, remedy)


def _unreadable(count: int, judgement: Judgement, remedy: str) -> DataError:
    if judgement.used_up:
        return DataError(
            f"None of the judge's answers on the first {count} pairs can be read: the limit of tokens was used up by "
            f"reasoning before there was an answer. Raise {judgement.used_up}, or switch reasoning off "
            "(endpoint.extra_body)."
        )
    said = " ".join(judgement.unread.split())
    said = f"'{said[:_SHOWN]}{' ...' if len(said) > _SHOWN else ''}'" if said else "nothing"
    return DataError(
        f"None of the judge's answers on the first {count} pairs can be read; one of them was {said}. {remedy}"
    )
