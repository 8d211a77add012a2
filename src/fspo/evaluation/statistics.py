"""Means with 95 % intervals clustered by user, and paired differences between methods on the same items.

A user's items share the user's shots and taste, so they are no independent draws: the interval has to come from the
spread between users (cluster-robust variance, Liang and Zeger 1986; t quantiles at `users - 1` degrees of freedom).
Shares get Wilson's score interval at the number of independent trials that would vary as much, so that it neither
leaves 0 to 1 nor closes up near them (Wilson 1927; effective size as in Korn and Graubard 1998).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from scipy.special import betaincinv, stdtrit

from fspo.errors import DataError

__all__ = ["MINIMUM_USERS", "Estimate", "clustered_mean", "paired_difference"]

MINIMUM_USERS = 3
"""With fewer users no interval is given: the spread between them is not known."""

Bounds = tuple[float, float]
_SHARE: Bounds = (0.0, 1.0)
_NOTHING = 1e-18
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

    `bounds` are the least and the greatest value an item can have (None: unbounded). Within 0 to 1 the mean is a share
    and gets a score interval; other bounds clip the interval. Where users don't differ, which says nothing of how they
    would, a share's interval is the one of as many trials as there are users.

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
    quantile = float(stdtrit(len(groups) - 1, 0.5 + confidence / 2))
    if variance < _NOTHING and bounds is not None:
        low, high = _alike(values, mean, len(groups), confidence, bounds)
    elif bounds == _SHARE:
        low, high = _score_interval(mean, mean * (1 - mean) / variance, quantile)
    else:
        reach = quantile * math.sqrt(variance)
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


def _score_interval(share: float, trials: float, quantile: float) -> Bounds:
    """Wilson's interval of a share seen in `trials` independent trials."""
    square = quantile**2 / trials
    middle = (share + square / 2) / (1 + square)
    reach = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return middle - reach, middle + reach


def _alike(values: Sequence[float], mean: float, users: int, confidence: float, bounds: Bounds) -> Bounds:
    """The interval where all users have the same mean."""
    low, high = bounds
    # How often something else may yet happen that happened to none of so many users (Clopper and Pearson 1934).
    miss = 1 - float(betaincinv(users, 1, (1 - confidence) / 2))
    if math.isclose(mean, high):
        return high - (high - low) * miss, high
    if math.isclose(mean, low, abs_tol=1e-12):
        return low, low + (high - low) * miss
    if max(values) - min(values) < _NOTHING:
        return mean, mean  # such as ties by construction
    share = (mean - low) / (high - low)
    inner = _score_interval(share, users, float(stdtrit(users - 1, 0.5 + confidence / 2)))
    return low + (high - low) * inner[0], low + (high - low) * inner[1]
