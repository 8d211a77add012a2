"""Two methods on the same items, and many against one: paired differences, p values, Holm's correction.

Both methods answered for the same users, so what makes a user or an item hard cancels in the difference; the interval
and the p value come from how the differences vary between users. They never contradict each other: p is below 0.05
where the 95% interval leaves out 0 (but for intervals clipped at the ends of what is possible).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, TypeVar

from scipy.special import stdtr

from fspo.errors import DataError
from fspo.evaluation.statistics.estimates import MINIMUM_USERS, Bounds, Estimate
from fspo.evaluation.statistics.intervals import Spread, clustered_mean, grouped, p_of_alike

__all__ = ["Comparison", "compare", "compare_all", "differences", "holm", "paired_difference"]

_DIFFERENCE_OF_SHARES: Bounds = (-1.0, 1.0)
_MOST_NAMED = 3
T = TypeVar("T", bound=Hashable)
USER_OF_ITEM: Callable[[Any], str] = itemgetter(0)
"""An item is a user and an id, unless another function says whose it is."""
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Comparison:
    """How much better the first of two methods is; the p values are None where there are too few users for any."""

    difference: Estimate
    p: float | None
    """How often users drawn from a world without any difference would differ by at least as much, on either side."""
    adjusted: float | None
    """`p` corrected for all comparisons made together (Holm); the same as `p` for a single comparison."""

    @property
    def significant(self) -> bool:
        """Whether the corrected p value is below 0.05."""
        return self.adjusted is not None and self.adjusted < 0.05

    def to_json(self) -> dict[str, Any]:
        """The fields of the difference, with `p` and `adjusted`."""
        return self.difference.to_json() | {"p": self.p, "adjusted": self.adjusted}


def paired_difference(
    first: Mapping[T, float],
    second: Mapping[T, float],
    user_of: Callable[[T], str] = USER_OF_ITEM,
    *,
    confidence: float = 0.95,
    bounds: Bounds | None = _DIFFERENCE_OF_SHARES,
) -> Estimate:
    """The mean of `first - second` over the items both have, clustered by user; items of only one side are left out.

    Raises:
        DataError: the two share no item.
    """
    values, users = differences(first, second, user_of)
    return clustered_mean(values, users, confidence=confidence, bounds=bounds)


def differences(
    first: Mapping[T, float], second: Mapping[T, float], user_of: Callable[[T], str] = USER_OF_ITEM
) -> tuple[list[float], list[str]]:
    """`first - second` of every item that both have, and whose item it is.

    Raises:
        DataError: the two share no item.
    """
    shared = [item for item in first if item in second]
    if not shared:
        raise DataError("The two methods share no item to be compared on; evaluate both on the same dataset and seed.")
    return [first[item] - second[item] for item in shared], [user_of(item) for item in shared]


def compare(
    first: Mapping[T, float],
    second: Mapping[T, float],
    user_of: Callable[[T], str] = USER_OF_ITEM,
    *,
    bounds: Bounds | None = _DIFFERENCE_OF_SHARES,
) -> Comparison:
    """The paired difference of two methods with its p value (a t test on the users' differences).

    Raises:
        DataError: one of the two has items that the other lacks.
    """
    _same_items(first, second)
    values, users = differences(first, second, user_of)
    difference = clustered_mean(values, users, bounds=bounds)
    p = _p_value(values, users, bounds) if difference.users >= MINIMUM_USERS else None
    return Comparison(difference, p, p)


def compare_all(
    lead: str,
    methods: Mapping[str, Mapping[T, float]],
    user_of: Callable[[T], str] = USER_OF_ITEM,
    *,
    bounds: Bounds | None = _DIFFERENCE_OF_SHARES,
) -> dict[str, Comparison]:
    """`lead` against each other method on the same items, with p values corrected for all of them together.

    Raises:
        DataError: `lead` is not among the methods, or two methods have different items.
    """
    if lead not in methods:
        raise DataError(f"There is no method {lead!r} to compare the others with; there are {', '.join(methods)}.")
    found = {
        name: compare(methods[lead], items, user_of, bounds=bounds) for name, items in methods.items() if name != lead
    }
    adjusted = holm({name: comparison.p for name, comparison in found.items()})
    return {name: replace(comparison, adjusted=adjusted[name]) for name, comparison in found.items()}


def holm(p_values: Mapping[Name, float | None]) -> dict[Name, float | None]:
    """P values corrected so that any false alarm among them has the stated chance at most (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and none falls below one before it. None stays None and isn't
    counted among the m.
    """
    known = sorted((p, order, name) for order, (name, p) in enumerate(p_values.items()) if p is not None)
    adjusted: dict[Name, float | None] = dict.fromkeys(p_values)
    reached = 0.0
    for before, (p, _, name) in enumerate(known):
        reached = max(reached, min(1.0, p * (len(known) - before)))
        adjusted[name] = reached
    return adjusted


def _same_items(first: Mapping[T, float], second: Mapping[T, float]) -> None:
    only = [[item for item in one if item not in other] for one, other in ((first, second), (second, first))]
    for which, items in zip(("first", "second"), only, strict=True):
        if items:
            named = ", ".join(map(str, items[:_MOST_NAMED])) + (" ..." if len(items) > _MOST_NAMED else "")
            raise DataError(
                f"{len(items)} items are only in the {which} of the two to be compared ({named}); evaluate both on the "
                "same dataset, users and seed."
            )


def _p_value(values: list[float], users: list[str], bounds: Bounds | None) -> float:
    mean, groups = math.fsum(values) / len(values), grouped(values, users)
    spread = Spread.clustered(groups)
    if spread.none:
        return p_of_alike(mean, len(groups), bounds)
    return min(1.0, 2 * float(stdtr(spread.degrees, -abs(mean) / spread.error)))
