"""The measures of every evaluation that depend on rewards: accuracy, labels, users, gains, and worse shots."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fspo.evaluation.config import percent
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Column, Table
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.scoring.variations import OTHER_TOPICS, one_wrong, order, wrong_labels

__all__ = ["compute_reward_metrics", "label_flips", "order_metrics", "robustness_metrics", "shot_effects"]

_BASELINES: Mapping[str, str] = {"ipo": "population", "oracle": "oracle"}
"""Methods that stand for knowing no user and for knowing everything."""


def compute_reward_metrics(name: str, rewards: Mapping[str, Rewards], trained_shots: Sequence[int] = ()) -> Table:
    """All of them for one method or reward model; see docs/evaluation.md for what each means.

    `trained_shots` are the shot counts that its policy was trained at.
    """
    row = rewards[name]
    gains = _few_shot_gains(row, trained_shots) | _gains_over_baselines(name, rewards)
    return _accuracies(row) | gains | robustness_metrics(row)


def label_flips(row: Rewards, *, only_correct: bool = False) -> Column:
    """1 for every item whose decision changes when the labels of the shots are flipped, 0 for the others.

    In-context reward models are known to memorise the contents of their context and ignore its labels, which accuracy
    alone does not show. An item without a decision (a margin of zero) on either side counts as unchanged.
    """
    own, flipped = (row.accuracies(row.plain, row.config.shots, condition).of for condition in ("own", "flipped"))
    asked = [item for item, right in own.items() if item in flipped and (right == 1 or not only_correct)]
    return Column({item: float({own[item], flipped[item]} == {0.0, 1.0}) for item in asked})


def _accuracies(row: Rewards) -> Table:
    """Accuracy by variant and shot count, label flips and user-swap drops.

    Over shot counts on the items of the curve, else on all.
    """
    full, config = row.config.shots, row.config
    found: Table = {}
    for variant in row.variants:
        for k in config.rungs:
            found[f"reward_accuracy@{k}/{variant}"] = row.curve(variant, k)
        found[f"reward_accuracy/{variant}"] = own = row.accuracies(variant, full)
        if row.own.context != "none" and config.user_swap:
            found[f"user_swap_drop/{variant}"] = own - row.accuracies(variant, full, "swapped")
    for measure in ("reward_accuracy", *(f"reward_accuracy@{k}" for k in config.rungs), "user_swap_drop"):
        if f"{measure}/{row.headline}" in found:
            found[measure] = found[f"{measure}/{row.headline}"]
    if row.sees_labels and config.label_flip:
        found["label_flip_rate"], found["label_flip_rate/correct"] = (
            label_flips(row),
            label_flips(row, only_correct=True),
        )
    return dict(sorted(found.items(), key=lambda entry: "/" in entry[0]))


def _few_shot_gains(row: Rewards, trained_shots: Sequence[int]) -> Table:
    """What the first shot brings, and what those beyond the most shots of its training do, on the same items."""
    variant, full = row.headline, row.config.shots
    if not row.sees_labels:
        return {}
    found = {"first_shot_gain": row.accuracies(variant, 1) - row.without_shots()}
    most = max(trained_shots, default=full)
    if most < full:
        found["beyond_training_gain"] = row.accuracies(variant, full) - row.accuracies(variant, most)
    return found


def _gains_over_baselines(name: str, rewards: Mapping[str, Rewards]) -> Table:
    """The headline accuracy at the full count less that of the same weights without shots, and of other methods."""
    row = rewards[name]
    own = row.accuracies(row.headline, row.config.shots)
    found = {"gain_over_no_context": own - row.without_shots()} if row.sees_labels else {}
    for baseline, label in _BASELINES.items():
        if baseline in rewards and baseline != name:
            other = rewards[baseline]
            found[f"gain_over_{label}"] = own - other.accuracies(other.headline, row.config.shots)
    return found


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
    found |= order_metrics(own.of, others) if others else {}
    return found | (shot_effects(row) if config.robustness.single_shots else {})


def shot_effects(row: Rewards) -> Table:
    """What each shot's label does to the margin of a query: half the change where that label alone is swapped.

    `shot_effect/1` is of the oldest shot; `shot_effect/all`, on the same items, of all labels together. By the reward
    of a single context, in nats, or in units of an external reward. A method that reads one shot has one large effect;
    one that reads them all has equal ones.
    """
    full = row.config.shots
    own = row.margins(row.plain, full)
    others = {str(place): row.margins(row.plain, full, one_wrong(place)) for place in range(1, full + 1)}
    items = {item for other in others.values() for item in other}
    if row.config.label_flip:
        flipped = row.margins(row.plain, full, "flipped")
        others["all"] = {item: margin for item, margin in flipped.items() if item in items}
    found = {
        f"shot_effect/{place}": Column(
            {item: (own[item] - margin) / 2 for item, margin in other.items() if item in own}, bounds=None
        )
        for place, other in others.items()
    }
    return {measure: column for measure, column in found.items() if column.of}


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
