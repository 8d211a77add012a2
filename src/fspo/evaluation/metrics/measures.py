"""The measures of `metrics.json`, computed from scored trials and judged answers; no model is needed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fspo.evaluation.config import EvaluationConfig, RewardVariant
from fspo.evaluation.judges.answer_quality import Quality
from fspo.evaluation.judges.win_rates import Judgement
from fspo.evaluation.metrics.per_item import Measured, Values
from fspo.evaluation.metrics.sensitivity import Item, flipped_decisions, swap_drops
from fspo.evaluation.scoring.eval_episodes import query_of
from fspo.evaluation.scoring.logprob_scores import (
    Condition,
    Scores,
    accuracy,
    antisymmetric_margin,
    likelihood_margin,
    reference_margin,
    settled,
)
from fspo.evaluation.statistics import Estimate, clustered_mean

__all__ = [
    "Rewards",
    "answer_measures",
    "curve_items",
    "items_at",
    "mean_of",
    "quality_measures",
    "reward_values",
]

_EQUAL = 1e-6
"""Scores of a reward model from elsewhere that differ by less are equal: the same input in other batches."""


@dataclass(frozen=True)
class Rewards:
    """A method's scores and those its implicit reward is measured against (None: there is nothing to compare with)."""

    own: Scores
    reference: Scores | None
    items: tuple[Item, ...]
    config: EvaluationConfig
    external: bool = False
    """Whether the scores are a reward model's own, and no log-probs."""

    @property
    def variants(self) -> tuple[RewardVariant, ...]:
        """The rewards this method has, the headline first."""
        found: list[RewardVariant] = ["score" if self.external else "likelihood"]
        if self.sees_labels and self.config.label_flip:
            found.insert(1 if self.external else 0, "antisymmetric")
        if self.reference is not None:
            found.insert(0, "reference")
        return tuple(sorted(found, key=lambda variant: variant != self.config.headline_reward))

    @property
    def headline(self) -> RewardVariant:
        """The reward that figures without a variant in their name are of."""
        return self.variants[0]

    @property
    def plain(self) -> RewardVariant:
        """The reward that a single context gives, which the label-flip rate is of."""
        if self.external:
            return "score"
        return "reference" if self.reference is not None else "likelihood"

    def by_construction(self, variant: RewardVariant, k: int) -> bool:
        """Whether the reward after `k` shots can't tell any two responses apart, whatever the weights.

        Without shots an antisymmetric reward is measured against itself, and so is a reference reward of weights whose
        reference they are themselves.
        """
        if k > 0 or not self.sees_labels:
            return False
        itself = self.reference is not None and self.reference.context == "none" and self.own.bare_at_none
        return variant == "antisymmetric" or (variant == "reference" and itself)

    @property
    def untold(self) -> RewardVariant:
        """The reward of the same weights after no shot: the plain one, or the likelihood where that is none."""
        return "likelihood" if self.by_construction(self.plain, 0) else self.plain

    @property
    def sees_labels(self) -> bool:
        """Whether shots are in the context."""
        return self.own.context in ("shots", "both")

    def margin(self, variant: RewardVariant, item: str, k: int, condition: Condition = "own") -> float | None:
        """How much higher the chosen response is ranked, 0 for mere rounding; None where it was not measured."""
        margin, score = self._margin(variant, item, k, condition), self.own.get(item, k, condition)
        if margin is None or score is None:
            return None
        if self.external:
            return 0.0 if abs(margin) < _EQUAL else margin
        by_mean = self.config.reduction == "mean"
        return settled(margin, min(score.chosen_tokens, score.rejected_tokens) if by_mean else 1)

    def _margin(self, variant: RewardVariant, item: str, k: int, condition: Condition) -> float | None:
        reduction = self.config.reduction
        if variant == "antisymmetric":
            return antisymmetric_margin(self.own, item, k, condition, reduction)
        if variant == "reference" and self.reference is not None:
            return reference_margin(self.own, self.reference, item, k, condition, reduction)
        return likelihood_margin(self.own, item, k, condition, reduction)

    def curve(self, variant: RewardVariant, k: int) -> dict[Item, float]:
        """As `accuracies`, on the items that are measured at every shot count."""
        right = self.accuracies(variant, k)
        return {item: right[item] for item in curve_items(self.items, self.config) if item in right}

    def accuracies(self, variant: RewardVariant, k: int, condition: Condition = "own") -> dict[Item, float]:
        """1, 0.5 or 0 for each item that was measured; nothing where it would be 0.5 by construction."""
        if self.by_construction(variant, k):
            return {}
        margins = ((item, self.margin(variant, item[1], k, condition)) for item in items_at(self.items, k, self.config))
        return {item: accuracy(margin) for item, margin in margins if margin is not None}


def items_at(items: Sequence[Item], k: int, config: EvaluationConfig) -> tuple[Item, ...]:
    """The items that every method is measured on at `k` shots: below the full count these may be fewer."""
    return curve_items(items, config) if k < config.shots else tuple(items)


def curve_items(items: Sequence[Item], config: EvaluationConfig) -> tuple[Item, ...]:
    """The items that are measured at every shot count: figures at several counts are comparable on these alone."""
    few = config.ladder_queries
    return tuple(item for item in items if few is None or query_of(item[1]) < few)


def mean_of(values: Mapping[Item, float]) -> Estimate | None:
    """The mean over items with an interval clustered by user; None without items."""
    return clustered_mean(list(values.values()), [user for user, _ in values]) if values else None


def reward_values(rewards: Rewards) -> Measured:
    """Accuracy by variant and shot count, label flips and user-swap drops, by item.

    Over shot counts on the items of the curve, else on all.
    """
    full, config = rewards.config.shots, rewards.config
    found: Measured = {}
    for variant in rewards.variants:
        for k in config.rungs:
            found[f"reward_accuracy@{k}/{variant}"] = Values(rewards.curve(variant, k))
        found[f"reward_accuracy/{variant}"] = Values(rewards.accuracies(variant, full))
        if rewards.own.context != "none" and config.user_swap:
            drops = swap_drops(rewards.items, _AtFull(rewards, variant))
            found[f"user_swap_drop/{variant}"] = Values(drops, bounds=(-1.0, 1.0))
    for name in ("reward_accuracy", *(f"reward_accuracy@{k}" for k in config.rungs), "user_swap_drop"):
        if f"{name}/{rewards.headline}" in found:
            found[name] = found[f"{name}/{rewards.headline}"]
    if rewards.sees_labels and config.label_flip:
        margins = _AtFull(rewards, rewards.plain)
        for name, only in (("label_flip_rate", False), ("label_flip_rate/correct", True)):
            found[name] = Values(flipped_decisions(rewards.items, margins, only_correct=only))
    return dict(sorted(found.items(), key=lambda entry: "/" in entry[0]))


def answer_measures(judgements: Sequence[Judgement], sampling: str, *, headline: bool) -> dict[str, Estimate]:
    """The win rate of one sampling, after the floors and by the judge's word alone; rejects count in neither."""
    win = mean_of({(j.user, j.item): j.score for j in judgements if j.decided})
    alone = mean_of({(j.user, j.item): j.judged_score for j in judgements if not j.reject})
    named = {"win_rate": win} if headline else {}
    named |= {f"win_rate/{sampling}": win, f"win_rate_without_floors/{sampling}": alone}
    return {measure: estimate for measure, estimate in named.items() if estimate is not None}


def quality_measures(
    items: Sequence[Item],
    qualities: Mapping[str, Quality],
    broken: Mapping[str, bool],
    unfinished: Mapping[str, bool],
    sampling: str,
) -> dict[str, Estimate]:
    """The judge-free measures, by item id; `unfinished` answers ran into the limit of tokens."""
    columns = {
        "fluency": {item: qualities[item[1]].log_prob for item in items},
        "distinct": {item: qualities[item[1]].distinct for item in items},
        "compression": {item: qualities[item[1]].compression for item in items},
        "overlap": {item: qualities[item[1]].overlap for item in items},
        "closeness": {item: qualities[item[1]].closeness for item in items},
        "words": {item: float(qualities[item[1]].words) for item in items},
        "below_floor": {item: float(broken[item[1]]) for item in items},
        "unfinished": {item: float(unfinished[item[1]]) for item in items},
    }
    users = [user for user, _ in items]
    bounded = ("distinct", "overlap", "closeness", "below_floor", "unfinished")
    return {
        f"{name}/{sampling}": clustered_mean(
            list(column.values()), users, bounds=(0.0, 1.0) if name in bounded else None
        )
        for name, column in columns.items()
    }


@dataclass(frozen=True)
class _AtFull:
    """The margins of one variant at the full shot count."""

    rewards: Rewards
    variant: RewardVariant

    def __call__(self, item: str, condition: Condition) -> float | None:
        return self.rewards.margin(self.variant, item, self.rewards.config.shots, condition)
