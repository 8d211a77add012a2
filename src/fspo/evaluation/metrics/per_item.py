"""What a measure found for each item, and what is made of that: an estimate over all users, and a figure for each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics import Estimate, clustered_mean

__all__ = ["Measured", "Values", "difference", "estimates", "no_interval", "per_user"]

_MOST_NAMED = 3
_ABSOLUTE = "it is a mean of absolute differences; see what chance alone gives"


@dataclass(frozen=True)
class Values:
    """One number for each item that was measured, and the least and greatest that it can be (None: anything)."""

    of: Mapping[Item, float]
    bounds: tuple[float, float] | None = (0.0, 1.0)
    most: float | None = None
    """What the mean can be at most, where that is less than an item's greatest."""
    absolute: bool = False
    """Whether the mean is one of absolute differences over all users, which has no interval, nor a figure for each."""

    def estimate(self) -> Estimate | None:
        """The mean over items with an interval clustered by user; None without items."""
        if not self.of:
            return None
        users = [user for user, _ in self.of]
        found = clustered_mean(list(self.of.values()), users, bounds=self.bounds)
        if self.most is not None and found.high is not None:
            found = replace(found, high=max(found.value, min(found.high, self.most)))
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


def no_interval(found: Iterable[tuple[str, Estimate]]) -> str:
    """A sentence where there is too little for intervals, which names the measures; empty where all have theirs."""
    lacking: dict[str, dict[str, None]] = defaultdict(dict)
    for measure, estimate in found:
        if estimate.note and estimate.lacking != _ABSOLUTE:
            lacking[estimate.note][measure] = None
    notes = [f"{note} ({_few(list(measures))})" for note, measures in sorted(lacking.items())]
    return f"Some figures have {'; '.join(notes)}." if notes else ""


def _few(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
