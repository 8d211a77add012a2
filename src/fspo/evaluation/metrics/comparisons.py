"""One method against each other, on the same items and by the same variant of a measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fspo.evaluation.config import Sampling
from fspo.evaluation.judges.win_rates import AnswerKey, Judgement
from fspo.evaluation.metrics.measures import Rewards
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics import Estimate, paired_difference

__all__ = ["comparisons", "item_values", "judged_values"]


def comparisons(
    lead: str,
    rewards: Mapping[str, Rewards],
    judgements: Mapping[AnswerKey, Sequence[Judgement]],
    samplings: Mapping[str, Sampling],
) -> dict[str, dict[str, Estimate]]:
    """Method -> measure -> `lead` less that method, with intervals of the paired differences.

    Measures are named as in `metrics.json`, with their variant. Those without one, `reward_accuracy` and `win_rate`,
    are the headlines, where both methods have the same one; like is compared with like alone.

    Args:
        lead: the method that the others are compared with.
        rewards: of every method.
        judgements: of every method and sampling that was judged.
        samplings: the sampling that a method's `win_rate` is of.
    """
    ours = item_values(lead, rewards[lead], judgements)
    found = {}
    for name, row in rewards.items():
        if name != lead:
            theirs = item_values(name, row, judgements)
            shared = [m for m in ours if theirs.get(m, {}).keys() & ours[m].keys()]
            found[name] = {m: paired_difference(ours[m], theirs[m], _user) for m in shared}
            for measure, one, other in (
                ("win_rate", samplings[lead], samplings[name]),
                ("reward_accuracy", rewards[lead].variants[0], row.variants[0]),
            ):
                if one == other and f"{measure}/{one}" in found[name]:
                    found[name] = {measure: found[name][f"{measure}/{one}"]} | found[name]
    return found


def item_values(
    name: str, rewards: Rewards, judgements: Mapping[AnswerKey, Sequence[Judgement]]
) -> dict[str, dict[Item, float]]:
    """What a method reached on each item, by measure: right or wrong for each reward, won or lost for each sampling."""
    found = {
        f"reward_accuracy/{variant}": rewards.accuracies(variant, rewards.config.shots) for variant in rewards.variants
    }
    for (method, sampling), rows in judgements.items():
        if method == name:
            found[f"win_rate/{sampling}"] = {(row.user, row.item): row.score for row in rows if row.decided}
    return {measure: items for measure, items in found.items() if items}


def judged_values(
    name: str, said: Mapping[str, Mapping[AnswerKey, Sequence[Judgement]]]
) -> dict[str, dict[Item, float]]:
    """The same by other judges than the headline's: `said` has their words."""
    found = {
        f"win_rate_by/{judge}/{sampling}": {(row.user, row.item): row.score for row in rows if row.decided}
        for judge, judgements in said.items()
        for (method, sampling), rows in judgements.items()
        if method == name
    }
    return {measure: items for measure, items in found.items() if items}


def _user(item: Item) -> str:
    return item[0]
