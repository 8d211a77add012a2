"""What becomes of a method's decisions where its shots are few, wrong, from elsewhere, or in another order."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fspo.evaluation.config import percent
from fspo.evaluation.metrics.measures import Rewards
from fspo.evaluation.metrics.per_item import Measured, Values, difference
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.scoring.logprob_scores import Condition
from fspo.evaluation.scoring.variations import OTHER_TOPICS, order, wrong_labels

__all__ = ["COLD", "baseline_gains", "few_shot_values", "order_values", "robustness_values"]

COLD = (0, 1)
"""Shot counts of a user nothing, or next to nothing, is known of; always measured."""

_BASELINES: Mapping[str, str] = {"ipo": "population", "oracle": "oracle"}
"""Methods that stand for knowing no user and for being told everything."""


def robustness_values(rewards: Rewards) -> Measured:
    """Accuracy and its loss under every variation, by the reward of a single context, or the antisymmetric headline.

    Losses are against the user's own shots as they are, on the same items.
    """
    if not rewards.sees_labels:
        return {}
    variant = "antisymmetric" if rewards.headline == "antisymmetric" else rewards.plain
    full, settings = rewards.config.shots, rewards.config.robustness

    def right(condition: Condition) -> dict[Item, float]:
        return rewards.accuracies(variant, full, condition)

    own = right("own")
    named = {"other_topics": (OTHER_TOPICS, "")}
    named |= {f"wrong_labels/{percent(s)}%": (wrong_labels(s), f"/{percent(s)}%") for s in rewards.config.wrong_labels}
    found: Measured = {}
    for name, (condition, suffix) in named.items():
        accuracies = right(condition)
        family = name.partition("/")[0]
        found[f"{family}_accuracy{suffix}"] = Values(accuracies)
        found[f"{family}_drop{suffix}"] = difference(own, accuracies)
    others = [right(order(number)) for number in range(1, settings.orders + 1)]
    return found | (order_values(own, others) if others else {})


def order_values(own: Mapping[Item, float], others: Sequence[Mapping[Item, float]]) -> Measured:
    """What hangs on the order of the shots, from accuracies under the first order and under others, by item."""
    items = [item for item in own if all(item in other for other in others)]
    orders = [own, *others]
    by_user: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_user[item[0]].append(item)
    return {
        "order_accuracy": Values({item: statistics.fmean(o[item] for o in orders) for item in items}),
        "order_change_rate": Values({i: statistics.fmean(float(o[i] != own[i]) for o in others) for i in items}),
        "order_spread": Values(
            {
                (user, user): statistics.pstdev(statistics.fmean(o[item] for item in mine) for o in orders)
                for user, mine in by_user.items()
            },
            bounds=(0.0, 0.5),
        ),
    }


def few_shot_values(rewards: Rewards, trained: Sequence[int]) -> Measured:
    """What the first shot brings, and what those beyond the `trained` shot counts do, on the same items.

    Without shots the headline may be none by construction; see `Rewards.untold`.
    """
    variant, full = rewards.headline, rewards.config.shots
    if not rewards.sees_labels:
        return {}
    found: Measured = {"first_shot_gain": difference(rewards.accuracies(variant, 1), _untold(rewards))}
    most = max(trained, default=full)
    if most < full:
        at_full, at_most = rewards.accuracies(variant, full), rewards.accuracies(variant, most)
        found["beyond_training_gain"] = difference(at_full, at_most)
    return found


def baseline_gains(name: str, rewards: Mapping[str, Rewards]) -> Measured:
    """The accuracy of a method's headline reward less that of the baselines, on the same items at the full count.

    Without context are the same weights at no shots (see `Rewards.untold`); the population and the oracle are those
    methods of the run.
    """
    row = rewards[name]
    full = row.config.shots
    own = row.accuracies(row.headline, full)
    found: Measured = {}
    if row.sees_labels:
        found["gain_over_no_context"] = difference(own, _untold(row))
    for baseline, known_as in _BASELINES.items():
        if baseline in rewards and baseline != name:
            other = rewards[baseline]
            found[f"gain_over_{known_as}"] = difference(own, other.accuracies(other.headline, full))
    return found


def _untold(rewards: Rewards) -> dict[Item, float]:
    """The accuracies without shots: by the headline where it is a reward there, else by one that is."""
    headline = rewards.headline
    return rewards.accuracies(rewards.untold if rewards.by_construction(headline, 0) else headline, 0)
