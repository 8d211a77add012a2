"""The ideal observer on the items of an evaluation: about the most to be hoped for, at every k and under variations.

See `fspo.evaluation.ideal_observer.observer`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fspo.evaluation.config import EvaluationConfig, percent
from fspo.evaluation.ideal_observer.observer import ideal_observer
from fspo.evaluation.ideal_observer.regret import Gaps, pair_regrets
from fspo.evaluation.judges.judgement_store import TextUtility
from fspo.evaluation.metrics.measures import Rewards, curve_items, items_at
from fspo.evaluation.metrics.per_item import Measured, Values, difference
from fspo.evaluation.scoring.eval_episodes import Item, Trial
from fspo.evaluation.scoring.variations import OTHER_TOPICS, Probe, Variation, wrong_labels
from fspo.preferences.types import User

__all__ = ["Ceiling"]

_SUREST_NOISE = 0.49


class Ceiling:
    """What the observer makes of every item; computed once."""

    def __init__(
        self,
        judge: TextUtility,
        prior: Sequence[User],
        trials: Sequence[Trial],
        probes: Sequence[Probe],
        items: Sequence[Item],
        config: EvaluationConfig,
    ) -> None:
        """Predict every query of the trials after each shot count, and of the probes under their variations."""
        self._judge, self._prior, self._items, self._config = judge, prior, items, config
        whole = [(trial, Variation("own", trial.own, tuple(range(len(trial.own.queries))))) for trial in trials]
        self._at = self._predict(whole, config.rungs, config.observer_noise)
        self._probes = probes

    def at(self, k: int) -> dict[Item, float]:
        """1, 0.5 or 0 for each item that methods are measured on at `k` shots."""
        return {item: self._at[k][item] for item in items_at(self._items, k, self._config) if item in self._at[k]}

    def curve(self, k: int) -> dict[Item, float]:
        """As `at`, on the items that are measured at every shot count."""
        right = self.at(k)
        return {item: right[item] for item in curve_items(self._items, self._config) if item in right}

    def values(self, gaps: Gaps) -> Measured:
        """The observer's figures, named as a method's; `gaps` are the true differences of the pairs.

        It is told how many labels are wrong, and not which.
        """
        full = self._config.shots
        found = {"reward_accuracy": Values(self.at(full))}
        found |= {f"reward_accuracy@{k}": Values(self.curve(k)) for k in self._config.rungs}
        found |= pair_regrets(self.at(full), gaps)
        varied = {"other_topics": (OTHER_TOPICS, "", self._config.observer_noise)}
        for share, count in self._config.wrong_labels.items():
            noise = min(_SUREST_NOISE, max(self._config.observer_noise, count / full))
            varied[f"wrong_labels/{percent(share)}"] = (wrong_labels(share), f"/{percent(share)}%", noise)
        for name, (condition, suffix, noise) in varied.items():
            family = name.partition("/")[0]
            right = self._predict(self._under(condition), (full,), noise)[full]
            found[f"{family}_accuracy{suffix}"] = Values(right)
            found[f"{family}_drop{suffix}"] = difference(self.at(full), right)
        return found

    def shortfalls(self, rewards: Rewards) -> Measured:
        """How far a method's headline accuracy stays below the observer's, on the same items.

        At the full shot count on all items; over shot counts on those of the curve.
        """
        full, variant = self._config.shots, rewards.headline
        rungs = self._config.rungs if rewards.sees_labels else (full,)
        found = {"shortfall": difference(self.at(full), rewards.accuracies(variant, full))}
        return found | {f"shortfall@{k}": difference(self.curve(k), rewards.curve(variant, k)) for k in rungs}

    def _under(self, condition: str) -> list[tuple[Trial, Variation]]:
        return [
            (probe.trial, variation)
            for probe in self._probes
            for variation in probe.variations(self._config)
            if variation.condition == condition
        ]

    def _predict(
        self, shown: Sequence[tuple[Trial, Variation]], ks: Sequence[int], noise: float
    ) -> dict[int, dict[Item, float]]:
        """Shot count -> item -> 1, 0.5 or 0."""
        predictions = ideal_observer(
            [(str(place), variation.episode) for place, (_, variation) in enumerate(shown)],
            self._prior,
            self._judge,
            ks,
            margin=float(getattr(self._judge, "margin", 0.0)),
            noise=noise,
        )
        found: dict[int, dict[Item, float]] = {k: {} for k in ks}
        for prediction in predictions:
            place, _, query = prediction.item.rpartition("/")
            trial, variation = shown[int(place)]
            found[prediction.k][prediction.user, trial.item(variation.numbers[int(query)])] = prediction.correct
        return found
