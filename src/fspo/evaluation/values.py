"""What a measure found for each item, and what is made of that: an estimate over all users, and a figure for each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fspo.evaluation.sensitivity import Item
from fspo.evaluation.statistics import Estimate, clustered_mean

__all__ = ["Measured", "Values", "difference", "estimates", "no_interval", "per_user"]

_ABSOLUTE = "it is a mean of absolute differences; see what chance alone gives"


@dataclass(frozen=True)
class Values:
    """One number for each item that was measured, and the least and greatest that it can be (None: anything)."""

    of: Mapping[Item, float]
    bounds: tuple[float, float] | None = (0.0, 1.0)
    absolute: bool = False
    """Whether the mean is one of absolute differences over all users, which has no interval, nor a figure for each."""

    def estimate(self) -> Estimate | None:
        """The mean over items with an interval clustered by user; None without items."""
        if not self.of:
            return None
        users = [user for user, _ in self.of]
        found = clustered_mean(list(self.of.values()), users, bounds=self.bounds)
        return replace(found, low=None, high=None, lacking=_ABSOLUTE) if self.absolute else found


Measured = dict[str, Values]
"""By the name of the measure."""


def difference(first: Mapping[Item, float], second: Mapping[Item, float]) -> Values:
    """`first - second` of two shares, on the items that both have."""
    return Values({item: first[item] - second[item] for item in first if item in second}, bounds=(-1.0, 1.0))


def estimates(measured: Measured) -> dict[str, Estimate]:
    """Measure -> estimate, of those that have items."""
    found = ((name, values.estimate()) for name, values in measured.items())
    return {name: estimate for name, estimate in found if estimate is not None}


def per_user(measured: Measured) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure -> user -> {value, items}: the mean over the user's items, without an interval."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, values in measured.items():
        own: dict[str, list[float]] = defaultdict(list)
        for (user, _), value in values.of.items():
            own[user].append(value)
        if own and not values.absolute:
            found[name] = {user: {"value": math.fsum(v) / len(v), "items": len(v)} for user, v in own.items()}
    return found


def no_interval(found: Iterable[Estimate]) -> str:
    """A sentence where there is too little for intervals; empty where every measure has what it can have."""
    notes = {estimate.note for estimate in found if estimate.note and estimate.lacking != _ABSOLUTE}
    return f"Some figures have {'; '.join(sorted(notes))}." if notes else ""
