"""What becomes of a method's decisions where its shots are wrong, on other topics, or in another order."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fspo.evaluation.config import percent
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Column, Table
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.scoring.variations import OTHER_TOPICS, order, wrong_labels

__all__ = ["order_metrics", "robustness_metrics"]


def robustness_metrics(row: Rewards) -> Table:
    """Accuracy and its loss under every variation, by the reward of a single context, or the antisymmetric headline.

    Losses are against the user's own shots as they are, on the same items.
    """
    if not row.sees_labels:
        return {}
    variant = "antisymmetric" if row.headline == "antisymmetric" else row.plain
    full, config = row.config.shots, row.config
    own = row.accuracies(variant, full)
    varied = [("other_topics", "", OTHER_TOPICS)]
    varied += [("wrong_labels", f"/{percent(share)}%", wrong_labels(share)) for share in config.wrong_labels]
    found: Table = {}
    for family, suffix, condition in varied:
        found[f"{family}_accuracy{suffix}"] = right = row.accuracies(variant, full, condition)
        found[f"{family}_drop{suffix}"] = own - right
    others = [row.accuracies(variant, full, order(n)).of for n in range(1, config.robustness.orders + 1)]
    return found | (order_metrics(own.of, others) if others else {})


def order_metrics(own: Mapping[Item, float], others: Sequence[Mapping[Item, float]]) -> Table:
    """What hangs on the order of the shots, from accuracies under the first order and under others, by item."""
    items = [item for item in own if all(item in other for other in others)]
    orders = [own, *others]
    by_user: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_user[item[0]].append(item)
    spreads = {
        (user, user): statistics.pstdev(statistics.fmean(o[item] for item in mine) for o in orders)
        for user, mine in by_user.items()
    }
    return {
        "order_accuracy": Column({item: statistics.fmean(o[item] for o in orders) for item in items}),
        "order_change_rate": Column({i: statistics.fmean(float(o[i] != own[i]) for o in others) for i in items}),
        "order_spread": Column(spreads, bounds=(0.0, 0.5)),
    }
