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

Where the same items are put to every user (`crossed_mean`), neither clustering alone will do: the same item is hard for
every user, and the same user's shots bear on every item. The variance of the mean is that clustered by user, plus that
clustered by item, less that of the single cells, which is in both (Cameron, Gelbach and Miller 2011); at least the
greater of the two. Its degrees of freedom are the fewer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field
from scipy.special import betaincinv, stdtr, stdtrit

from fspo.errors import DataError
from fspo.printing import counted

__all__ = [
    "MINIMUM_USERS",
    "NO_INTERVAL",
    "Bounds",
    "Cell",
    "Estimate",
    "Spread",
    "clustered_mean",
    "crossed_mean",
    "estimate_of",
    "grouped",
    "p_of_alike",
    "score_interval",
    "users_needed",
]

MINIMUM_USERS = 3
"""With fewer users no interval is given: the spread between them is not known."""
NO_INTERVAL = "no interval"
"""How a note on a missing interval begins."""

Bounds = tuple[float, float]
"""The least and the greatest value that an item can have."""

_CONFIDENCE = 0.95
_SHARE: Bounds = (0.0, 1.0)
_NOTHING = 1e-18
_ALIKE = 1e-12
_NO_SPREAD = "all values are equal, so their spread is unknown"
_LEAST_DEGREES = 2.0


@dataclass(frozen=True)
class Estimate:
    """A mean over `items` of `users`, with its 95% interval, or none where too little is known to tell."""

    value: float
    low: float | None
    high: float | None
    users: int
    items: int
    lacking: Annotated[str, Field(exclude=True)] = ""
    """Why there is no interval, in words, where users alone are not what is short; files don't keep it."""

    @property
    def note(self) -> str:
        """Why there is no interval, in words; empty where there is one."""
        if self.low is not None:
            return ""
        if self.lacking:
            return f"{NO_INTERVAL}: {self.lacking}"
        return users_needed(self.users) if 0 < self.users < MINIMUM_USERS else NO_INTERVAL

    def to_json(self) -> dict[str, Any]:
        """The five fields of `metrics.json`; `low` and `high` are null where there is no interval."""
        return {name: value for name, value in vars(self).items() if name != "lacking"}


def users_needed(users: int, needed: int = MINIMUM_USERS) -> str:
    """That so many users are too few for an interval, in words."""
    return f"{NO_INTERVAL}: {counted(users, 'users')}, at least {needed} are needed"


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
    and gets a score interval; other bounds clip the interval. Where users don't differ, the interval says what unseen
    users may do to the mean (`_alike`); without bounds there is none.

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
        return Estimate(mean, *_alike(values, len(groups), bounds), len(groups), len(values))
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


def p_of_alike(values: Sequence[float], users: int, bounds: Bounds | None) -> float:
    """The p value of a mean of 0 where all users have the same mean.

    It is below 0.05 where the 95% interval of `_alike` leaves out 0. Where nothing bounds the values, it is the chance
    that all users lie on one side of 0.
    """
    mean = math.fsum(values) / len(values)
    if math.isclose(mean, 0.0, abs_tol=_ALIKE):
        return 1.0
    low, high = bounds or (-abs(mean), abs(mean))
    if not low < 0 < high:
        raise DataError(f"Differences from {low:g} to {high:g} can't be tested against 0; give bounds on both sides.")
    if bounds is None or _constant(values):
        # With a mean of 0, users have other values at least so often.
        others = mean / (mean - (low if mean > 0 else high))
        return min(1.0, 2 * (1 - others) ** users)
    null = -low / (high - low)
    errors = abs(mean) / (high - low) / math.sqrt(null * (1 - null) / users)
    return min(1.0, 2 * float(stdtr(users - 1, -errors)))


def _alike(values: Sequence[float], users: int, bounds: Bounds) -> Bounds:
    """The interval where all users have the same mean: as if each were one trial.

    Where all values are equal too, each trial found that value, and the interval says how far the mean moves if other
    values are as frequent as they can be although none was found (Clopper and Pearson 1934).
    """
    low, high = bounds
    mean = math.fsum(values) / len(values)
    if _constant(values):
        others = 1 - float(betaincinv(users, 1, (1 - _CONFIDENCE) / 2))
        return mean - (mean - low) * others, mean + (high - mean) * others
    inner = score_interval((mean - low) / (high - low), users, float(stdtrit(users - 1, 0.5 + _CONFIDENCE / 2)))
    return low + (high - low) * inner[0], low + (high - low) * inner[1]


def _constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) < _ALIKE


Cell = tuple[str, str]
"""A user and an item; the user is empty where none is involved."""


def crossed_mean(values: Mapping[Cell, float], bounds: Bounds | None) -> Estimate | None:
    """The mean of the cells; None without any. Cells without a user are clustered by item alone, and count no user.

    No interval where there are fewer than three users, or fewer than three items; `note` says which.
    """
    if not values:
        return None
    numbers, users, items = list(values.values()), [user for user, _ in values], [item for _, item in values]
    lacking = _lacking(len(set(users)) if any(users) else None, len(set(items)))
    by_item = clustered_mean(numbers, items, bounds=bounds)
    if not any(users):
        return replace(by_item, users=0, items=len(numbers), lacking=lacking or by_item.lacking)
    by_user = clustered_mean(numbers, users, bounds=bounds)
    if lacking:
        return Estimate(by_user.value, None, None, by_user.users, len(numbers), lacking)
    spreads = [Spread.clustered(grouped(numbers, clusters)) for clusters in (users, items)]
    if any(spread.none for spread in spreads):
        return _wider(by_user, by_item)
    single = Spread.clustered({number: [value] for number, value in enumerate(numbers)})
    variances = [spread.variance for spread in spreads]
    variance = max(sum(variances) - single.variance, *variances)
    spread = Spread(variance, min(spread.degrees for spread in spreads))
    return estimate_of(by_user.value, spread, users=by_user.users, items=len(numbers), bounds=bounds)


def _lacking(users: int | None, items: int) -> str:
    """What there is too little of for an interval, in words; users are None where none are involved."""
    short = [
        counted(count, kind)
        for count, kind in ((users, "users"), (items, "items"))
        if count is not None and count < MINIMUM_USERS
    ]
    each = "of each " if len(short) > 1 else ""
    return f"{' and '.join(short)}, at least {MINIMUM_USERS} {each}are needed" if short else ""


def _wider(by_user: Estimate, by_item: Estimate) -> Estimate:
    """Where a side does not vary at all, which says little of how it would: the wider interval there is."""

    def width(estimate: Estimate) -> float:
        return -1.0 if estimate.low is None or estimate.high is None else estimate.high - estimate.low

    wide = max(by_user, by_item, key=width)
    return replace(wide, value=by_user.value, users=by_user.users, items=by_user.items)
