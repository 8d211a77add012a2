"""Reading what language models write: lists of lines, and answers that can be used or the reason why not."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import Any

from fspo.judging.attributes import sentences, words
from fspo.judging.refusals import opens_with_refusal
from fspo.llm.types import Completion

__all__ = ["fault", "items_of", "lines_of", "tidied"]

_MARK = re.compile(r"^\s*(?:[-*•]+|\(?\d{1,3}[.):]|#+)\s*")
_QUOTES = "\"'\u201c\u201d\u2018\u2019 "
_ROLE = re.compile(r"^\s*(?:user|assistant|system|human|ai)\s*:\s*", re.IGNORECASE)
_TURN = re.compile(r"\n\s*(?:user|assistant|system|human)\s*:", re.IGNORECASE)
_SURE = 16
"""Words from which the language of a text is looked at; shorter ones can't be told."""
_MOST_REPEATED = 0.4


def lines_of(text: str) -> list[str]:
    """The items of a list that a model wrote, without numbers, bullets and quotation marks."""
    items = (_MARK.sub("", line).strip().strip(_QUOTES) for line in text.splitlines())
    return [item for item in items if words(item)]


def items_of(completion: Completion) -> list[str]:
    """The items of a list that a model wrote: no line that leads to others, and none that was cut off."""
    items = lines_of(completion.text)
    if completion.finish_reason == "length":
        items = items[:-1]
    return [item for item in items if not item.endswith(":")]


def tidied(completion: Completion) -> str:
    """A completion as a response: no role before it, no further turn after it, no torn sentence at its end."""
    text = _ROLE.sub("", completion.text.strip())
    text = _TURN.split(text)[0].strip()
    if completion.finish_reason == "length":
        text = _whole(text)
    return text


def fault(text: str, *, min_words: int, language: str) -> str | None:
    """Why a response can't be used: empty, a refusal, too short, repetition, or in another language; None if it can."""
    tokens = [word.lower() for word in words(text)]
    if not tokens:
        return "empty"
    if opens_with_refusal(text):
        return "refusal"
    if len(tokens) < min_words:
        return "too short"
    if _repeats(tokens):
        return "repetition"
    if _foreign(text, len(tokens), language):
        return "another language"
    return None


def _whole(text: str) -> str:
    """The text up to the end of its last whole sentence or list item; empty where there is none."""
    lines = text.rstrip().splitlines()
    while lines:
        last = sentences(lines[-1])
        if last and last[-1][-1] not in ".!?\"'\u201d)":
            torn = lines[-1].rfind(last[-1])
            lines[-1] = lines[-1][:torn].rstrip() if torn >= 0 else ""
        if words(lines[-1]):
            return "\n".join(lines).strip()
        lines.pop()
    return ""


def _repeats(tokens: list[str]) -> bool:
    runs = Counter(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    repeated = sum(count for count in runs.values() if count > 1)
    return len(tokens) >= 12 and repeated > _MOST_REPEATED * max(1, sum(runs.values()))


def _foreign(text: str, count: int, language: str) -> bool:
    if language == "en" and not text.isascii():
        letters = [letter for letter in text if letter.isalpha()]
        latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
        if latin < 0.8 * len(letters):
            return True
    if count < _SURE:
        return False
    identifier = _identifier()
    if language not in identifier.nb_classes:  # such as nb or mi: every text would pass for another language
        return False
    found, likely = identifier.classify(text)
    return bool(found != language and likely > 0.9)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
