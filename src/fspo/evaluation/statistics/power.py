"""How small a difference a study can see, with a chance of 80%, in a test at 5%: for one at hand or one to plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import nctdtrinc, stdtrit

from fspo.evaluation.statistics.intervals import MINIMUM_USERS, grouped

__all__ = ["Variation", "errors_needed", "smallest_detectable", "variation"]

_POWER, _ALPHA = 0.8, 0.05


@dataclass(frozen=True)
class Variation:
    """How items vary: between users, and within a user."""

    between: float
    """Variance of the users' true means, 0 where they vary no more than chance explains."""
    within: float
    """Variance of a user's items around the user's mean; 0 where users have one item each, `between` is then all."""

    def error(self, users: int, items_per_user: float) -> float:
        """The standard error of a mean over `users` with `items_per_user` items each."""
        return math.sqrt((self.between + self.within / items_per_user) / users)


def variation(values: Sequence[float], users: Sequence[str]) -> Variation | None:
    """The variance between and within users, by analysis of variance (Donner 1986 for users with unequal counts).

    None where there are too few users.
    """
    groups = grouped(values, users)
    if len(groups) < MINIMUM_USERS:
        return None
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


def smallest_detectable(varying: Variation, users: int, items_per_user: float, *, comparisons: int = 1) -> float | None:
    """The true difference that a study of this size finds significant; None where it has too few users.

    `varying` is that of the paired differences, and `comparisons` is how many p values are corrected together. From the
    noncentral t distribution at `users - 1` degrees of freedom.
    """
    if users < MINIMUM_USERS:
        return None
    return errors_needed(users - 1, comparisons=comparisons) * varying.error(users, items_per_user)


def errors_needed(degrees: float, *, comparisons: int) -> float:
    """How many standard errors a difference has to be: 2.8 for many users and one comparison, more for few.

    With several comparisons each p value has to be below 5% divided by their number.
    """
    critical = float(stdtrit(degrees, 1 - _ALPHA / comparisons / 2))
    return float(nctdtrinc(degrees, 1 - _POWER, critical))
