"""Means with 95 % intervals clustered by user, and paired differences between methods on the same items.

A user's items share the user's shots and taste, so they are no independent draws: the interval has to come from the
spread between users (cluster-robust variance, Liang and Zeger 1986; t quantiles at `users - 1` degrees of freedom).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from scipy.special import betaincinv, stdtrit

from fspo.errors import DataError

__all__ = ["MINIMUM_USERS", "Estimate", "bootstrap_interval", "clustered_mean", "paired_difference"]

MINIMUM_USERS = 3
"""With fewer users no interval is given: the spread between them is not known."""

Bounds = tuple[float, float]
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean over `items` of `users`, with its 95 % interval, or none where there are too few users to tell."""

    value: float
    low: float | None
    high: float | None
    users: int
    items: int

    @property
    def note(self) -> str:
        """Why there is no interval; empty where there is one."""
        if self.low is not None:
            return ""
        return f"no interval: {self.users} user{'s' if self.users != 1 else ''}, at least {MINIMUM_USERS} are needed"

    def to_json(self) -> dict[str, Any]:
        """The five fields of `metrics.json`; `low` and `high` are null where there is no interval."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "users": self.users,
            "items": self.items,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Estimate:
        """The estimate that `to_json` wrote."""
        return cls(record["value"], record["low"], record["high"], record["users"], record["items"])


def clustered_mean(
    values: Sequence[float],
    users: Sequence[str],
    *,
    confidence: float = 0.95,
    bounds: Bounds | None = (0.0, 1.0),
) -> Estimate:
    """The mean over all items with a cluster-robust interval; `users[i]` is whose item `values[i]` is.

    `bounds` are the least and the greatest value an item can have (None: unbounded); the interval is clipped to them,
    and where every item lies at one of them (a spread of zero, which says nothing) it is the exact binomial one with
    the users as trials.

    Raises:
        DataError: no items, as many users as values are not given, or a value is not finite.
    """
    groups = _grouped(values, users)
    count = len(values)
    mean = math.fsum(values) / count
    if len(groups) < MINIMUM_USERS:
        return Estimate(mean, None, None, len(groups), count)
    residuals = [math.fsum(value - mean for value in group) for group in groups.values()]
    variance = _robust_variance(residuals, count)
    if variance < 1e-18 and bounds is not None:
        low, high = _exact_interval(mean, len(groups), confidence, bounds)
    else:
        reach = float(stdtrit(len(groups) - 1, 0.5 + confidence / 2)) * math.sqrt(variance)
        low, high = mean - reach, mean + reach
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(mean, low, high, len(groups), count)


def paired_difference(
    first: Mapping[T, float],
    second: Mapping[T, float],
    user_of: Callable[[T], str],
    *,
    confidence: float = 0.95,
) -> Estimate:
    """The mean of `first - second` over the items both have, clustered by user; items of only one side are left out.

    Raises:
        DataError: the two share no item.
    """
    shared = [item for item in first if item in second]
    if not shared:
        raise DataError("The two methods share no item to be compared on; evaluate both on the same dataset and seed.")
    differences = [first[item] - second[item] for item in shared]
    return clustered_mean(differences, [user_of(item) for item in shared], confidence=confidence, bounds=(-1.0, 1.0))


def bootstrap_interval(
    values: Sequence[float],
    users: Sequence[str],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The percentile interval of the mean when whole users are drawn anew; None with too few users.

    A check on `clustered_mean` that assumes no distribution; with few users it is too narrow, so it isn't the headline.
    """
    groups = _grouped(values, users)
    if len(groups) < MINIMUM_USERS:
        return None
    totals = [(math.fsum(group), len(group)) for group in groups.values()]
    generator = random.Random(seed)
    means = sorted(_mean_of_totals(generator.choices(totals, k=len(totals))) for _ in range(draws))
    tail = (1 - confidence) / 2
    return means[int(tail * draws)], means[min(draws - 1, int((1 - tail) * draws))]


def _grouped(values: Sequence[float], users: Sequence[str]) -> dict[str, list[float]]:
    if not values:
        raise DataError("There are no items to average; evaluate at least one user with one query.")
    if len(values) != len(users):
        raise DataError(f"{len(values)} values came with {len(users)} users; every value needs the user it belongs to.")
    if not all(math.isfinite(value) for value in values):
        raise DataError("A value to average is not a finite number; look for a model whose log-probs overflow.")
    groups: dict[str, list[float]] = defaultdict(list)
    for value, user in zip(values, users, strict=True):
        groups[user].append(value)
    return groups


def _robust_variance(residuals: Sequence[float], count: int) -> float:
    clusters = len(residuals)
    return clusters / (clusters - 1) * math.fsum(residual**2 for residual in residuals) / count**2


def _exact_interval(mean: float, trials: int, confidence: float, bounds: Bounds) -> Bounds:
    """Clopper and Pearson's interval when all trials came out alike; between the bounds there is nothing to go by."""
    low, high = bounds
    miss = (high - low) * (1 - float(betaincinv(trials, 1, (1 - confidence) / 2)))
    if math.isclose(mean, high):
        return high - miss, high
    if math.isclose(mean, low):
        return low, low + miss
    return mean, mean


def _mean_of_totals(totals: Iterable[tuple[float, int]]) -> float:
    pairs = list(totals)
    return math.fsum(total for total, _ in pairs) / sum(count for _, count in pairs)
