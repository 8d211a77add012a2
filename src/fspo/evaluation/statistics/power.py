"""How small a difference a study can see: the minimum detectable difference, for the study at hand or one to plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scipy.special import nctdtrinc, stdtrit

from fspo.evaluation.statistics.comparing import USER_OF_ITEM, differences
from fspo.evaluation.statistics.estimates import MINIMUM_USERS, TooFewUsers
from fspo.evaluation.statistics.intervals import Spread, grouped

__all__ = ["Variation", "detectable_difference", "smallest_detectable", "variation"]

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Variation:
    """How items vary: between users, and within a user."""

    between: float
    """Variance of the users' true means, 0 where they vary no more than chance explains."""
    within: float
    """Variance of a user's items around the user's mean; 0 where users have one item each, `between` is then all."""

    @property
    def correlation(self) -> float:
        """How alike two items of a user are: 0 not at all, 1 the same (the intraclass correlation)."""
        total = self.between + self.within
        return self.between / total if total > 0 else 0.0

    def error(self, users: int, items_per_user: float) -> float:
        """The standard error of a mean over `users` with `items_per_user` items each."""
        return math.sqrt((self.between + self.within / items_per_user) / users)


def variation(values: Sequence[float], users: Sequence[str]) -> Variation | TooFewUsers:
    """The variance between and within users, by analysis of variance (Donner 1986 for users with unequal counts)."""
    groups = grouped(values, users)
    if len(groups) < MINIMUM_USERS:
        return TooFewUsers(len(groups))
    count, mean = len(values), math.fsum(values) / len(values)
    sizes, means = (
        [len(group) for group in groups.values()],
        [math.fsum(group) / len(group) for group in groups.values()],
    )
    spread = math.fsum(size * (own - mean) ** 2 for size, own in zip(sizes, means, strict=True)) / (len(groups) - 1)
    if count == len(groups):
        return Variation(spread, 0.0)
    residual = math.fsum(
        (value - own) ** 2 for group, own in zip(groups.values(), means, strict=True) for value in group
    )
    within = residual / (count - len(groups))
    typical_size = (count - sum(size**2 for size in sizes) / count) / (len(groups) - 1)
    return Variation(max(0.0, (spread - within) / typical_size), within)


def smallest_detectable(
    varying: Variation,
    users: int,
    items_per_user: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    comparisons: int = 1,
) -> float | TooFewUsers:
    """The true difference that a study of this size finds significant with chance `power`, at least.

    `varying` is that of the paired differences. From the noncentral t distribution at `users - 1` degrees of freedom.
    `comparisons` is how many p values are corrected together; each then has to be below `alpha / comparisons`. Holm's
    method asks that of the smallest p value only, and less of the others, so that the true power is no lower.
    """
    if users < MINIMUM_USERS:
        return TooFewUsers(users)
    return _errors_needed(users - 1, power, alpha / comparisons) * varying.error(users, items_per_user)


def detectable_difference(
    first: Mapping[T, float],
    second: Mapping[T, float],
    user_of: Callable[[T], str] = USER_OF_ITEM,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    comparisons: int = 1,
) -> float | TooFewUsers:
    """What two methods would have to differ by to be told apart by the items at hand; 0 where they never differed.

    With the degrees of freedom of their own test, and `comparisons` as in `smallest_detectable`.

    Raises:
        DataError: the two share no item.
    """
    values, users = differences(first, second, user_of)
    groups = grouped(values, users)
    if len(groups) < MINIMUM_USERS:
        return TooFewUsers(len(groups))
    spread = Spread.clustered(groups)
    return _errors_needed(spread.degrees, power, alpha / comparisons) * spread.error


def _errors_needed(degrees: float, power: float, alpha: float) -> float:
    """How many standard errors a difference has to be: 2.8 for many users and one comparison, more for few."""
    critical = float(stdtrit(degrees, 1 - alpha / 2))
    return float(nctdtrinc(degrees, 1 - power, critical))
