"""The mean over cells of users and items, with an interval for both being draws.

The same item is hard for every user, and the same user's shots bear on every item: neither clustering alone will do.
The variance of the mean is that clustered by user, plus that clustered by item, less that of the single cells, which is
in both (Cameron, Gelbach and Miller 2011); at least the greater of the two. Its degrees of freedom are the fewer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from fspo.evaluation.statistics import MINIMUM_USERS, Bounds, Estimate, Spread, clustered_mean, estimate_of

__all__ = ["Cell", "crossed_mean"]

Cell = tuple[str, str]
"""A user and an item; the user is empty where none is involved."""


def crossed_mean(values: Mapping[Cell, float], bounds: Bounds | None) -> Estimate | None:
    """The mean of the cells; None without any. Cells without a user are clustered by item alone, and count no user.

    No interval where there are fewer than three users, or fewer than three items.
    """
    if not values:
        return None
    numbers, users, items = list(values.values()), [user for user, _ in values], [item for _, item in values]
    by_item = clustered_mean(numbers, items, bounds=bounds)
    if not any(users):
        return Estimate(by_item.value, by_item.low, by_item.high, 0, len(numbers))
    by_user = clustered_mean(numbers, users, bounds=bounds)
    if by_user.low is None or by_item.low is None or by_user.users < MINIMUM_USERS:
        return Estimate(by_user.value, None, None, by_user.users, len(numbers))
    spreads = [_spread(numbers, groups) for groups in (users, items)]
    if any(spread.none for spread in spreads):
        return _wider(by_user, by_item)
    single = _spread(numbers, range(len(numbers)))
    variances = [spread.variance for spread in spreads]
    variance = max(sum(variances) - single.variance, *variances)
    spread = Spread(variance, min(spread.degrees for spread in spreads))
    return estimate_of(by_user.value, spread, users=by_user.users, items=len(numbers), bounds=bounds)


def _spread(values: Sequence[float], groups: Iterable[object]) -> Spread:
    mean = math.fsum(values) / len(values)
    sums: dict[object, float] = defaultdict(float)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value - mean
    return Spread.of(list(sums.values()), len(values))


def _wider(one: Estimate, other: Estimate) -> Estimate:
    """Where a side does not vary at all, which says little of how it would: the wider interval."""

    def width(estimate: Estimate) -> float:
        return (estimate.high or 0.0) - (estimate.low or 0.0)

    wide = max(one, other, key=width)
    return Estimate(one.value, wide.low, wide.high, one.users, one.items)
