"""The rewards of one method: which it has, and the margin of every item under every condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fspo.evaluation.config import EvaluationConfig, RewardVariant
from fspo.evaluation.metrics.table import Column
from fspo.evaluation.scoring.eval_episodes import Condition, Item, mirror_of, query_number
from fspo.evaluation.scoring.logprob_scores import ROUNDING, Scores

__all__ = ["Rewards", "decision", "on_curve"]

_EQUAL = 1e-6
"""Scores of an external reward model that differ by less are equal: the same input in other batches."""


@dataclass(frozen=True)
class Rewards:
    """A method's scores and those its implicit reward is measured against (None: there is nothing to compare with)."""

    own: Scores
    reference: Scores | None
    items: tuple[Item, ...]
    config: EvaluationConfig
    external: bool = False
    """Whether the scores are a reward model's own, and no log-probs."""
    other_weights: bool = False
    """Whether the reference has weights of its own."""
    _margins: dict[tuple[RewardVariant, int, Condition], dict[Item, float]] = field(default_factory=dict, repr=False)

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

    @property
    def sees_labels(self) -> bool:
        """Whether shots are in the context."""
        return self.own.context in ("shots", "both")

    def by_construction(self, variant: RewardVariant, k: int) -> bool:
        """Whether the reward after `k` shots can't tell any two responses apart, whatever the weights.

        Without shots an antisymmetric reward is measured against itself, and so is a reference reward of weights whose
        reference they are themselves.
        """
        if k > 0 or not self.sees_labels:
            return False
        bare = self.reference is not None and self.reference.context == "none" and self.own.bare_at_none
        itself = bare and not self.other_weights
        return variant == "antisymmetric" or (variant == "reference" and itself)

    def margins(self, variant: RewardVariant, k: int, condition: Condition = "own") -> dict[Item, float]:
        """How much higher the chosen response is ranked, 0 for mere rounding; of the items that were measured."""
        key = (variant, k, condition)
        if key not in self._margins:
            found = ((item, self._margin(variant, item[1], k, condition)) for item in self.items)
            self._margins[key] = {item: margin for item, margin in found if margin is not None}
        return self._margins[key]

    def accuracies(self, variant: RewardVariant, k: int, condition: Condition = "own") -> Column:
        """1, 0.5 or 0 for each item that was measured; nothing where it would be 0.5 by construction.

        Below the full shot count only on the items of the curve, which every method is measured on.
        """
        if self.by_construction(variant, k):
            return Column({})
        right = {item: decision(margin) for item, margin in self.margins(variant, k, condition).items()}
        return Column(on_curve(right, self.config) if k < self.config.shots else right)

    def curve(self, variant: RewardVariant, k: int) -> Column:
        """As `accuracies`, on the items that are measured at every shot count."""
        return Column(on_curve(self.accuracies(variant, k).of, self.config))

    def without_shots(self) -> Column:
        """Accuracies of the same weights without shots: by the headline if that can tell there, else by another."""
        able = (variant for variant in (self.headline, self.plain) if not self.by_construction(variant, 0))
        return self.accuracies(next(able, "likelihood"), 0)

    def _margin(self, variant: RewardVariant, item: str, k: int, condition: Condition) -> float | None:
        reduction = self.config.reduction
        score, margin = self.own.get(item, k, condition), self.own.margin(item, k, condition, reduction)
        if variant == "antisymmetric":
            # Half of log pi(y | S, x) - log pi(y | S', x) between y_w and y_l; S' are the shots with swapped labels.
            margin = _less(margin, self.own.margin(item, k, mirror_of(condition), reduction))
            margin = None if margin is None else margin / 2
        elif variant == "reference" and self.reference is not None:
            # The implicit reward's margin over beta (DPO, arXiv 2305.18290, eq. 5); beta changes no decision.
            margin = _less(margin, self.reference.margin(item, k, condition, reduction))
        if margin is None or score is None:
            return None
        if self.external:
            return 0.0 if abs(margin) < _EQUAL else margin
        # The same response in rows packed differently comes out a little different in float32.
        tokens = min(score.chosen_tokens, score.rejected_tokens) if reduction == "mean" else 1
        return 0.0 if abs(margin) * tokens < ROUNDING else margin


def decision(margin: float) -> float:
    """1 where the chosen response is ranked higher, 0 where the rejected one is, 0.5 where there is no difference."""
    return 0.5 if margin == 0 else float(margin > 0)


def on_curve(values: Mapping[Item, float], config: EvaluationConfig) -> dict[Item, float]:
    """Values of the items that are measured at every shot count; only on these are several counts comparable."""
    few = config.ladder_queries
    return {item: value for item, value in values.items() if few is None or query_number(item[1]) < few}


def _less(margin: float | None, other: float | None) -> float | None:
    return None if margin is None or other is None else margin - other
