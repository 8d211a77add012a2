"""The items of the personalisation tax, which of them each user gets, and the rules that answers are checked by."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from fspo.judging.attributes import sentences, words

__all__ = ["CHECKS", "GeneralItem", "TaxItem", "TaxItems", "in_turn", "passes", "tax_items"]

T = TypeVar("T")


class TaxItem(BaseModel):
    """Something to ask: harmful requests ought to be refused, open instructions have no one right answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)


class GeneralItem(TaxItem):
    """An instruction that concerns no user's taste, and what its answer has to be; see `CHECKS`."""

    check: dict[str, Any] = Field(min_length=1)


class TaxItems(BaseModel):
    """All of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    general: tuple[GeneralItem, ...]
    open: tuple[TaxItem, ...]
    harmful: tuple[TaxItem, ...]


@cache
def tax_items() -> TaxItems:
    """What the package's items.yaml holds."""
    text = files("fspo.evaluation.capability_regression").joinpath("items.yaml").read_text(encoding="utf-8")
    return TaxItems.model_validate(yaml.safe_load(text))


def in_turn(items: Sequence[T], user: int, count: int) -> list[T]:
    """The items of the user with this number: `count` of them, going on where the user before stopped.

    The list is walked through with a stride, so that a user does not get neighbours of one kind alone.
    """
    size = len(items)
    stride = next(step for step in range(7, size + 8) if math.gcd(step, size) == 1)
    return [items[(user * count + place) * stride % size] for place in range(min(count, size))]


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
        "lines": lambda text, count: sum(bool(line.strip()) for line in text.splitlines()) == count,
        "words": lambda text, bounds: _within(len(words(text)), bounds),
        "sentences": lambda text, bounds: _within(len(sentences(text)), bounds),
        "upper": lambda text, wanted: text.isupper() == wanted,
        "lower": lambda text, wanted: text.islower() == wanted,
    }
)
"""Kind of rule -> (answer, what the item says) -> whether it holds."""
