"""The user-aware pairwise judge: a language model that reads the user's description and compares in both orders.

A pair is decided where both orders agree (FSPO, arXiv 2502.19312, section 5); anything else is kept apart with its
reason. How often the orders agree, and how often the first place wins, tells how far the decided ones can be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import tee

from fspo.errors import DataError
from fspo.identity import digest
from fspo.judging.verdicts import Comparison, Failure, Judgement, Preferred, Verdict
from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.quoting import Quotation, quoted
from fspo.llm.replies import only_object
from fspo.llm.types import Completion, CompletionRequest, LanguageModel, Message, identity_of, replies_of
from fspo.preferences.types import User
from fspo.progress import Scaled, Task

__all__ = ["ANSWER_TOKENS", "PairwiseJudge", "Prompt", "failed_verdict", "prompt_of", "read_verdict", "readable"]

Prompt = Callable[[User, str, str, str], str]
"""(user, question, first response, second response) -> what a judge reads; all texts come quoted (`prompt_of`)."""

ANSWER_TOKENS = 48
"""Tokens that an answer may take, where nothing else is set."""
_FEW, _ENOUGH = 8, 100
"""Pairs from which a judge can be told to be unreadable: when there are no more, and at the latest."""
_SHOWN = 200
"""Characters of an answer that are shown, at most."""
_PREFERRED = re.compile(r'"preferred"\s*:\s*"([^"{}]{1,20})"\s*[,}]')
_PLANTED = re.compile(r"preferred\W*[:=]", re.IGNORECASE)
_LETTER = re.compile(r"\W*(?:answer|response|option)?\W*([AB])\b(?!['\u2019])[\W_]*$", re.IGNORECASE)
_WORDS: dict[str, Preferred] = {"a": "first", "b": "second", "unclear": "tie", "tie": "tie"}


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

        `llm` is asked at temperature 0. `prompt` gives what it reads: it asks for the JSON {"preferred": "A"}, where A
        is the first, B the second, and "unclear" is allowed. `at_once` comparisons have their requests held at a time;
        an answer may take `max_tokens`, reasoning included, which is called `setting` where it is set.
        """
        self.llm, self._prompt, self._seed, self._at_once = llm, prompt, seed, at_once
        self._max_tokens, self._setting = max_tokens, setting

    @property
    def name(self) -> str:
        """The model's."""
        return f"{self.llm.name} in both orders"

    @property
    def identity(self) -> str:
        """Distinguishes judges whose verdicts can differ: the model, and all that it is asked of a pair."""
        asked = self.request(Comparison(User("user", "DESCRIPTION"), "QUESTION", "FIRST", "SECOND")).record()
        return f"asked {digest([identity_of(self.llm), asked], 64)}"

    @property
    def replies(self) -> dict[str, int]:
        """What was odd about the model's replies, and its failed requests -> how many."""
        return replies_of(self.llm)

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        """Which response the user prefers; a tie where the two orders do not agree."""
        return next(self.judge([Comparison(user, prompt, first, second)])).preferred

    def judge(self, comparisons: Iterable[Comparison], task: Task | None = None) -> Iterator[Judgement]:
        """Judge many pairs, in order; `task` is advanced by one for each.

        Raises:
            ModelError: the model failed; see its `complete`.
        """
        ahead, compared = tee(comparisons)
        requests = (self.request(shown) for comparison in ahead for shown in (comparison, comparison.swapped))
        answers = self._answers(requests, None if task is None else Scaled(task, 0.5))
        for comparison in compared:
            yield Judgement(
                (self._verdict(next(answers), comparison), self._verdict(next(answers), comparison.swapped))
            )

    def request(self, shown: Comparison) -> CompletionRequest:
        """What is asked about a pair in one order."""
        return CompletionRequest(
            (Message("user", prompt_of(self._prompt, shown)),),
            max_tokens=self._max_tokens,
            temperature=0.0,
            seed=self._seed,
        )

    def read(self, answer: Completion, texts: Iterable[str] = ()) -> Verdict:
        """What an answer says of a pair as it was shown; `texts` are what the judge has read."""
        return read_verdict(answer, texts)

    def _answers(self, requests: Iterator[CompletionRequest], task: Task | None) -> Iterator[Completion]:
        return ask_all(self.llm, requests, 2 * self._at_once, task)

    def _verdict(self, answer: Completion, shown: Comparison) -> Verdict:
        verdict = self.read(answer, shown.texts)
        if verdict.failure in ("unreadable", "reasoning"):
            request = self.request(shown)
            mark_unusable(self.llm, *{request, replace(request, logprobs=0)})
        if verdict.failure == "reasoning":
            return replace(verdict, detail=f"{self._setting}, which is {self._max_tokens:,}")
        return verdict


def prompt_of(prompt: Prompt, shown: Comparison) -> str:
    """What a judge reads: the prompt with all texts quoted, so that none can pose as another or as the prompt.

    Texts that the prompt does not show bear on nothing in it.
    """
    texts = dict(zip(("description", "question", "first", "second"), shown.texts, strict=True))
    quotation, asked = _quoting(prompt, shown.user, texts)
    used = {name: text for name, text in texts.items() if f"<{name}-{quotation.fence}>" in asked}
    if len(used) < len(texts):
        quotation, asked = _quoting(prompt, shown.user, used)
    return f"{quotation.notice}\n\n{asked}" if used else asked


def _quoting(prompt: Prompt, user: User, texts: Mapping[str, str]) -> tuple[Quotation, str]:
    quotation = quoted(texts)
    description, *others = (quotation.texts.get(name, "") for name in ("description", "question", "first", "second"))
    return quotation, prompt(replace(user, description=description), *others)


def read_verdict(answer: Completion, texts: Iterable[str] = ()) -> Verdict:
    """What a judge's answer says: a JSON object with "preferred", or one letter alone; anything else is unreadable.

    Where one of the `texts` that the judge has read holds an answer of this form, the judge may quote it, and only an
    answer that is nothing but the object is read.
    """
    if failed := failed_verdict(answer):
        return failed
    preferred = _preferred(answer.text, texts)
    return Verdict("tie", "unreadable", answer.text) if preferred is None else Verdict(preferred)


def failed_verdict(answer: Completion) -> Verdict | None:
    """The verdict of a request that was not answered; None for an answer."""
    failures: dict[str, Failure] = {"refused": "refused", "reasoning": "reasoning", "failed": "failed"}
    failure = failures.get(answer.finish_reason)
    return Verdict("tie", failure) if failure else None


def _preferred(text: str, texts: Iterable[str]) -> Preferred | None:
    if _PLANTED.search(text) and any(map(_PLANTED.search, texts)):
        return _WORDS.get(str(only_object(text).get("preferred", "")).strip().lower())
    found = _PREFERRED.findall(text)
    if found:  # thoughts may quote the other ways to answer first
        return _WORDS.get(found[-1].strip().lower())
    letter = _LETTER.match(text.strip())
    if letter:
        return _WORDS[letter[1].lower()]
    return "tie" if text.strip().strip("\"'.").lower() == "unclear" else None


def readable(
    judgements: Iterable[Judgement], remedy: str, *, before: int = 0, whole: bool = True
) -> Iterator[Judgement]:
    """The judgements as they come, as long as the first of them are not all unreadable in both orders.

    `remedy` says how to fix it. `before` counts those that were unreadable before these, where none was read. `whole`:
    whether these are all there are, so that few of them tell too.

    Raises:
        DataError: they are all unreadable, and so the rest would be: with one of the answers.
    """
    read, count, last = False, before, None
    for judgement in judgements:
        read = read or any(verdict.failure not in ("unreadable", "reasoning") for verdict in judgement.orders)
        count, last = count + 1, judgement
        if count >= _ENOUGH and not read:
            raise _unreadable(count, judgement, remedy)
        yield judgement
    if whole and last is not None and not read and count >= _FEW:
        raise _unreadable(count, last, remedy)


def _unreadable(count: int, judgement: Judgement, remedy: str) -> DataError:
    if limit := judgement.detail("reasoning"):
        return DataError(
            f"None of the judge's answers on the first {count} pairs can be read: the limit of tokens was used up by "
            f"reasoning before there was an answer. Raise {limit}, or switch reasoning off (endpoint.extra_body)."
        )
    said = " ".join(judgement.detail("unreadable").split())
    said = f"'{said[:_SHOWN]}{' ...' if len(said) > _SHOWN else ''}'" if said else "nothing"
    return DataError(
        f"None of the judge's answers on the first {count} pairs can be read; one of them was {said}. {remedy}"
    )
