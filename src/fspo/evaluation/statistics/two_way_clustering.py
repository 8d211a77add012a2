"""The mean over cells of users and items, with an interval for both being draws.

The same item is hard for every user, and the same user's shots bear on every item: neither clustering alone will do.
The variance of the mean is that clustered by user, plus that clustered by item, less that of the single cells, which is
in both (Cameron, Gelbach and Miller 2011); at least the greater of the two. Its degrees of freedom are the fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fspo.evaluation.statistics import MINIMUM_USERS, Bounds, Estimate, Spread, clustered_mean, estimate_of, grouped

__all__ = ["Cell", "crossed_mean"]

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
        f"{count} {kind}{'s' if count != 1 else ''}"
        for count, kind in ((users, "user"), (items, "item"))
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
