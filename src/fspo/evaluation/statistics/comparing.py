"""Two methods on the same items, and many against one: paired differences, p values, Holm's correction.

Both methods answered for the same users, so what makes a user or an item hard cancels in the difference; the interval
and the p value come from how the differences vary between users. They never contradict each other: p is below 0.05
where the 95% interval leaves out 0 (but for intervals clipped at the ends of what is possible).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, TypeVar

from scipy.special import stdtr

from fspo.errors import DataError
from fspo.evaluation.statistics.intervals import (
    MINIMUM_USERS,
    Bounds,
    Estimate,
    Spread,
    clustered_mean,
    grouped,
    p_of_alike,
)
from fspo.evaluation.statistics.power import errors_needed

__all__ = ["Comparison", "compare", "compare_all", "compare_together", "holm", "paired_difference"]

_DIFFERENCE_OF_SHARES: Bounds = (-1.0, 1.0)
_MOST_NAMED = 3

Values = Mapping[Any, float]
"""Item -> value; an item is a tuple that begins with its user."""
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Comparison:
    """How much better the first of two methods is; only the difference is known where there are too few users."""

    difference: Estimate
    p: float | None
    """How often users drawn from a world without any difference would differ by at least as much, on either side."""
    adjusted: float | None
    """`p` corrected for all comparisons made together (Holm); the same as `p` for a single comparison."""
    detectable: float | None = None
    """The true difference that these items would show with a chance of 80%, after that correction; None where users
    are too few, or all have the same mean difference, which tells nothing about how much users vary."""

    @property
    def significant(self) -> bool:
        """Whether the corrected p value is below 0.05."""
        return self.adjusted is not None and self.adjusted < 0.05

    @property
    def outcome(self) -> Literal["better", "worse", "not distinguishable", "too few users"]:
        """How the first method compares, as far as the corrected p value tells."""
        if self.adjusted is None:
            return "too few users"
        if not self.significant:
            return "not distinguishable"
        return "better" if self.difference.value > 0 else "worse"


def paired_difference(first: Values, second: Values) -> Estimate:
    """The mean of `first - second` over the items both have, clustered by user; items of only one side are left out.

    Raises:
        DataError: the two share no item.
    """
    return clustered_mean(*_differences(first, second), bounds=_DIFFERENCE_OF_SHARES)


def compare(first: Values, second: Values, *, bounds: Bounds | None = _DIFFERENCE_OF_SHARES) -> Comparison:
    """The paired difference of two methods with its p value (a t test on the users' differences).

    Raises:
        DataError: one of the two has items that the other lacks.
    """
    return compare_together({"": (first, second)}, bounds=bounds)[""]


def compare_all(lead: str, methods: Mapping[str, Values]) -> dict[str, Comparison]:
    """`lead` against each other method on the same items, with p values corrected for all of them together.

    Raises:
        DataError: `lead` is not among the methods, or two methods have different items.
    """
    if lead not in methods:
        raise DataError(f"There is no method {lead!r} to compare the others with; there are {', '.join(methods)}.")
    return compare_together({name: (methods[lead], items) for name, items in methods.items() if name != lead})


def compare_together(
    pairs: Mapping[Name, tuple[Values, Values]], *, bounds: Bounds | None = _DIFFERENCE_OF_SHARES
) -> dict[Name, Comparison]:
    """The first less the second of each pair, with p values corrected for all pairs together.

    Raises:
        DataError: two methods of a pair have different items.
    """
    found: dict[Name, Comparison] = {}
    spreads: dict[Name, Spread] = {}
    for name, (first, second) in pairs.items():
        _same_items(first, second)
        values, users = _differences(first, second)
        difference, p = clustered_mean(values, users, bounds=bounds), None
        if difference.users >= MINIMUM_USERS:
            spreads[name] = spread = Spread.clustered(grouped(values, users))
            p = _p_value(values, difference.users, spread, bounds)
        found[name] = Comparison(difference, p, p)
    adjusted = holm({name: comparison.p for name, comparison in found.items()})
    # Holm's method asks that much of the smallest p value alone, and less of the others, so the power is no lower.
    detectable = {
        name: errors_needed(spread.degrees, comparisons=len(spreads)) * spread.error
        for name, spread in spreads.items()
        if not spread.none
    }
    return {
        name: replace(comparison, adjusted=adjusted[name], detectable=detectable.get(name))
        for name, comparison in found.items()
    }


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


def _differences(first: Values, second: Values) -> tuple[list[float], list[str]]:
    """`first - second` of every item that both have, and whose item it is."""
    shared = [item for item in first if item in second]
    if not shared:
        raise DataError("The two methods share no item to be compared on; evaluate both on the same dataset and seed.")
    return [first[item] - second[item] for item in shared], [item[0] for item in shared]


def _same_items(first: Values, second: Values) -> None:
    only = [[item for item in one if item not in other] for one, other in ((first, second), (second, first))]
    for which, items in zip(("first", "second"), only, strict=True):
        if items:
            named = ", ".join(map(str, items[:_MOST_NAMED])) + (" ..." if len(items) > _MOST_NAMED else "")
            raise DataError(
                f"{len(items)} items are only in the {which} of the two to be compared ({named}); evaluate both on the "
                "same dataset, users and seed."
            )


def _p_value(values: Sequence[float], users: int, spread: Spread, bounds: Bounds | None) -> float:
    if spread.none:
        return p_of_alike(values, users, bounds)
    return min(1.0, 2 * float(stdtr(spread.degrees, -abs(fmean(values)) / spread.error)))
