"""Means with 95% intervals clustered by user.

A user's items share the user's shots and taste, so they are no independent draws: the interval has to come from the
spread between users (cluster-robust variance, Liang and Zeger 1986). Two things are added, because with few users, or
near 0 and 1, that alone covers the truth too rarely (`benchmarks/interval_coverage.py` has the figures):

- Shares get Wilson's score interval at the number of independent trials that would vary as much, so that it neither
  leaves 0 to 1 nor closes up near them (Wilson 1927; effective size as in Korn and Graubard 1998).
- The t quantile has the degrees of freedom that the spread is really known with. The variance is a sum of squares, one
  for each user; where a few users make up most of it, it is known less well than `users - 1` says. The match of its
  first two moments (Satterthwaite 1946), with the fourth moment of the users' residuals instead of a normal one, says
  how much. With residuals of normal shape this is `users - 1` again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import betaincinv, stdtr, stdtrit

from fspo.errors import DataError
from fspo.evaluation.statistics.estimates import MINIMUM_USERS, Bounds, Estimate

__all__ = ["Spread", "clustered_mean", "estimate_of", "grouped", "p_of_alike", "score_interval"]

_CONFIDENCE = 0.95
_SHARE: Bounds = (0.0, 1.0)
_NOTHING = 1e-18
_ALIKE = 1e-12
_NO_SPREAD = "all are alike, and nothing bounds what others may be"
_LEAST_DEGREES = 2.0


@dataclass(frozen=True)
class Spread:
    """The variance of a mean, and the degrees of freedom that it is known with."""

    variance: float
    degrees: float

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.variance)

    @property
    def none(self) -> bool:
        """Whether all users have the same mean."""
        return self.variance < _NOTHING

    @property
    def quantile(self) -> float:
        """How many standard errors an interval reaches on either side."""
        return float(stdtrit(self.degrees, 0.5 + _CONFIDENCE / 2))

    @classmethod
    def clustered(cls, groups: Mapping[Any, Sequence[float]]) -> Spread:
        """Of the mean over all values, which are alike within a group (`grouped`)."""
        count = sum(map(len, groups.values()))
        mean = math.fsum(value for group in groups.values() for value in group) / count
        return cls.of([math.fsum(value - mean for value in group) for group in groups.values()], count)

    @classmethod
    def of(cls, residuals: Sequence[float], items: int) -> Spread:
        """From each user's sum of deviations from the mean (at least two users) over `items` items in all.

        With residuals r of G users and n items, the variance is G / (G - 1) sum(r^2) / n^2, and its degrees of freedom
        are 2 / (sum(r^4) / sum(r^2)^2 - 1 / G), between 2 and G - 1.
        """
        users, squares = len(residuals), [residual**2 for residual in residuals]
        total = math.fsum(squares)
        variance = users / (users - 1) * total / items**2
        if variance < _NOTHING:
            return cls(variance, users - 1)
        unevenness = math.fsum(square**2 for square in squares) / total**2 - 1 / users
        degrees = 2 / unevenness if unevenness > 0 else math.inf
        return cls(variance, min(max(degrees, _LEAST_DEGREES), users - 1))


def clustered_mean(values: Sequence[float], users: Sequence[str], *, bounds: Bounds | None = _SHARE) -> Estimate:
    """The mean over all items with a cluster-robust interval; `users[i]` is whose item `values[i]` is.

    `bounds` are the least and the greatest value an item can have (None: unbounded). Within 0 to 1 the mean is a share
    and gets a score interval; other bounds clip the interval. Where users don't differ, which says nothing of how they
    would, the interval is the one of as many trials as there are users, whatever the bounds; without any there is none.

    Raises:
        DataError: no items, as many users as values are not given, or a value is not finite.
    """
    groups = grouped(values, users)
    mean = math.fsum(values) / len(values)
    if len(groups) < MINIMUM_USERS:
        return Estimate(mean, None, None, len(groups), len(values))
    spread = Spread.clustered(groups)
    if spread.none:
        if bounds is None:
            return Estimate(mean, None, None, len(groups), len(values), _NO_SPREAD)
        return Estimate(mean, *_alike(mean, len(groups), bounds), len(groups), len(values))
    return estimate_of(mean, spread, users=len(groups), items=len(values), bounds=bounds)


def estimate_of(
    value: float,
    spread: Spread,
    *,
    users: int,
    items: int,
    bounds: Bounds | None = _SHARE,
    most_trials: float = math.inf,
) -> Estimate:
    """`value` with the interval that its `spread` gives: a score interval for shares, plus and minus for others.

    `most_trials` is how many independent trials a share's interval is worth at most, however little it varied.
    """
    quantile = spread.quantile
    if bounds == _SHARE:
        trials = value * (1 - value) / spread.variance if spread.variance > 0 else math.inf
        low, high = score_interval(value, max(min(trials, most_trials), _NOTHING), quantile)
    else:
        low, high = value - quantile * spread.error, value + quantile * spread.error
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value, low, high, users, items)


def grouped(values: Sequence[float], users: Sequence[str]) -> Mapping[str, list[float]]:
    """Each user's values.

    Raises:
        DataError: no items, as many users as values are not given, or a value is not finite.
    """
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


def score_interval(share: float, trials: float, quantile: float) -> Bounds:
    """Wilson's interval of a share seen in `trials` independent trials."""
    square = quantile**2 / trials
    middle = (share + square / 2) / (1 + square)
    reach = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return middle - reach, middle + reach


def p_of_alike(mean: float, users: int, bounds: Bounds | None) -> float:
    """The p value of 0 where all users have the same mean: below 0.05 where the 95% interval of `_alike` leaves out 0.

    At the ends of what is possible, and where nothing bounds the values, that all users lie on one side of 0.
    """
    if math.isclose(mean, 0.0, abs_tol=_ALIKE):
        return 1.0
    low, high = bounds or (-abs(mean), abs(mean))
    if not low < 0 < high:
        raise DataError(f"Differences from {low:g} to {high:g} can't be tested against 0; give bounds on both sides.")
    null = -low / (high - low)
    if math.isclose(mean, high):
        return min(1.0, 2 * null**users)
    if math.isclose(mean, low):
        return min(1.0, 2 * (1 - null) ** users)
    errors = abs(mean) / (high - low) / math.sqrt(null * (1 - null) / users)
    return min(1.0, 2 * float(stdtr(users - 1, -errors)))


def _alike(mean: float, users: int, bounds: Bounds) -> Bounds:
    """The interval where all users have the same mean: as if each were one trial."""
    low, high = bounds
    # How often something else may yet happen that happened to none of so many users (Clopper and Pearson 1934).
    miss = 1 - float(betaincinv(users, 1, (1 - _CONFIDENCE) / 2))
    if math.isclose(mean, high):
        return high - (high - low) * miss, high
    if math.isclose(mean, low, abs_tol=_ALIKE):
        return low, low + (high - low) * miss
    share = (mean - low) / (high - low)
    inner = score_interval(share, users, float(stdtrit(users - 1, 0.5 + _CONFIDENCE / 2)))
    return low + (high - low) * inner[0], low + (high - low) * inner[1]
