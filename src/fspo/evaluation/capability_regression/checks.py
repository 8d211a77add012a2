"""Whether an answer does what a general instruction asks: one rule for each kind of item, no model and no judge.

An answer that says more than it was asked passes where only the fact is asked for, and fails where the form is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fspo.judging.attributes import sentences, words

__all__ = ["CHECKS", "passes"]

_BULLET = re.compile(r"^\s*[-*•+]\s+\S")
_NUMBERED = re.compile(r"^\s*\(?\d{1,2}[.):]\s+\S")
_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
_OUTER = " \t\n\"'\u201c\u201d\u2018\u2019.,:;!*`"


def passes(check: Mapping[str, Any], text: str) -> bool:
    """Whether the text passes all rules of the check; with `or` among them, one of these words is enough instead.

    An empty text passes nothing.
    """
    if not text.strip():
        return False
    rules = {kind: wanted for kind, wanted in check.items() if kind != "or"}
    return all(CHECKS[kind](text, wanted) for kind, wanted in rules.items()) or _answer(text, check.get("or", []))


def _answer(text: str, accepted: list[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in accepted)


def _number(text: str, wanted: float) -> bool:
    found = (float(number.replace(",", "").replace("\u2212", "-")) for number in _NUMBER.findall(text))
    return any(number == wanted for number in found)


def _only(text: str, accepted: list[str]) -> bool:
    return text.strip(_OUTER).lower() in accepted


def _ends(text: str, word: str) -> bool:
    said = text.rstrip(_OUTER).lower()
    whole = not word.isalpha() or not said.removesuffix(word.lower())[-1:].isalpha()
    return said.endswith(word.lower()) and whole


def _starts(text: str, word: str) -> bool:
    said = words(text)
    return bool(said) and said[0].lower() == word.lower()


def _within(count: int, bounds: list[int]) -> bool:
    least, most = bounds
    return least <= count <= most


def _json(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        found = json.loads(_FENCE.sub("", text))
    except ValueError:
        return False
    return isinstance(found, dict) and {str(k): str(v) for k, v in found.items()} == {
        k: str(v) for k, v in wanted.items()
    }


def _commas(text: str, count: int) -> bool:
    parts = [part.strip(_OUTER) for part in text.strip().split(",")]
    return len(parts) == count and all(parts) and "\n" not in text.strip()


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


CHECKS: Mapping[str, Callable[[str, Any], bool]] = MappingProxyType(
    {
        "answer": _answer,
        "number": _number,
        "only": _only,
        "starts": _starts,
        "ends": _ends,
        "json": _json,
        "commas": _commas,
        "has": lambda text, wanted: all(_answer(text, [word]) for word in wanted),
        "lacks": lambda text, unwanted: not _answer(text, unwanted),
        "bullets": lambda text, count: sum(bool(_BULLET.match(line)) for line in text.splitlines()) == count,
        "numbered": lambda text, count: sum(bool(_NUMBERED.match(line)) for line in text.splitlines()) == count,
        "lines": lambda text, count: len(_lines(text)) == count,
        "words": lambda text, bounds: _within(len(words(text)), bounds),
        "sentences": lambda text, bounds: _within(len(sentences(text)), bounds),
        "upper": lambda text, wanted: text.isupper() == wanted,
        "lower": lambda text, wanted: text.islower() == wanted,
    }
)
"""Kind of rule -> (answer, what the item says) -> whether it holds."""
