"""The items of the personalisation tax, out of the package's own file, and which of them each user gets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GeneralItem", "TaxItem", "TaxItems", "in_turn", "tax_items"]

T = TypeVar("T")


class TaxItem(BaseModel):
    """Something to ask: harmful requests ought to be refused, open instructions have no one right answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)


class GeneralItem(TaxItem):
    """An instruction that is nobody's taste, and what its answer has to be; see `capability_regression.checks`."""

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
    stride = next(step for step in range(7, size + 8) if _coprime(step, size))
    return [items[(user * count + place) * stride % size] for place in range(min(count, size))]


def _coprime(one: int, other: int) -> bool:
    while other:
        one, other = other, one % other
    return one == 1
