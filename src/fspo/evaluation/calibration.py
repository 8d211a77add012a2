"""Is a wide margin surer to be right? Reliability of the reward margin, read as a probability by the sigmoid.

Under Bradley and Terry's model (1952) the chosen response is preferred with probability sigmoid(r_w - r_l). A reward's
scale is arbitrary where nothing has set it, so each figure stands beside one for the margin times a scale that fits the
other users best.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from fspo.evaluation.artifacts import CalibrationRecord, ErrorByChance, ReliabilityBin
from fspo.evaluation.context import OptionalMeasure
from fspo.evaluation.metrics.rewards import Rewards
from fspo.evaluation.metrics.table import Column, Table
from fspo.evaluation.scoring.eval_episodes import Item

__all__ = ["BINS", "Calibration", "calibration_metrics", "error_by_chance", "fitted_margins", "reliability_bins"]

BINS = 5
"""Bins of equal width between a confidence of a half, no idea, and of one."""

_WIDEST = 12.0
"""Natural logarithms of the least and greatest scale that is tried, after margins are brought to a spread of 1."""


class Calibration(OptionalMeasure):
    """Calibration of every method's headline reward, as it is and with a fitted scale."""

    def rewards(self, method: str, rewards: Mapping[str, Rewards]) -> Table:
        """See `calibration_metrics`."""
        margins = self._margins(method, rewards[method])
        fitted = fitted_margins(margins)
        return calibration_metrics(margins) | (calibration_metrics(fitted, "/fitted") if fitted else {})

    def files(self, rewards: Mapping[str, Rewards]) -> dict[str, dict[str, Any]]:
        """Method -> its reward, the scale of its margins, reliability by bins of confidence, the error by chance."""
        return {"calibration.json": {name: self._record(name, row) for name, row in rewards.items()}}

    def _record(self, method: str, row: Rewards) -> CalibrationRecord:
        margins = self._margins(method, row)
        fitted = fitted_margins(margins)
        return CalibrationRecord(
            reward=row.headline,
            scale=self._scale(method, row),
            bins=tuple(reliability_bins(margins)),
            fitted_bins=tuple(reliability_bins(fitted)),
            error_by_chance=error_by_chance(margins),
            fitted_error_by_chance=error_by_chance(fitted),
        )

    def _margins(self, method: str, row: Rewards) -> dict[Item, float]:
        """The headline reward's margins at the full shot count, times the scale that training has set."""
        scale = self._scale(method, row)
        return {item: scale * margin for item, margin in row.margins(row.headline, row.config.shots).items()}

    def _scale(self, method: str, row: Rewards) -> float:
        unscaled = row.headline in ("likelihood", "score")
        return 1.0 if unscaled else self.evaluation.trained(method).scale(row.config.reduction)


def calibration_metrics(margins: Mapping[Item, float], suffix: str = "") -> Table:
    """Calibration error, Brier score and overconfidence of margins (chosen less rejected, in units of the logit).

    The calibration error is the expected one (Naeini et al. 2015) over confidence max(p, 1 - p): sum over bins of
    n_b / n |mean confidence - accuracy|. As a mean over items it is sign_b (confidence - right). The signs are chosen
    so that it is positive: an interval of that mean would leave out perfect calibration where there is nothing but
    chance. So it has none, and is to be read beside `error_by_chance`. The Brier score is (1 - p)^2, p the probability
    of what was chosen; a coin has 0.25.
    """
    confidence, right, places = _decisions(margins)
    over = confidence - right
    signs = np.copysign(1.0, np.bincount(places, weights=over, minlength=BINS))[places]
    errors, briers = signs * over, expit(-np.array(list(margins.values()))) ** 2
    return {
        f"calibration_error{suffix}": _column(margins, errors, bounds=(-1.0, 1.0), absolute=True),
        f"brier{suffix}": _column(margins, briers),
        f"overconfidence{suffix}": _column(margins, over, bounds=(-1.0, 1.0)),
    }


def error_by_chance(margins: Mapping[Item, float], *, draws: int = 1000, seed: int = 0) -> ErrorByChance | None:
    """The calibration error that a perfectly calibrated reward of the same confidences would have; None without any.

    Each decision is drawn to be right with the chance that its margin states, by itself; `mean` and `high`, the 95th
    percentile, are over all draws. An error below `high` may be chance alone.
    """
    if not margins:
        return None
    confidence, decided, places = _decisions(margins)
    rng = np.random.default_rng(seed)
    errors = np.empty(draws)
    for draw in range(draws):
        right = np.where(decided == 0.5, 0.5, rng.random(len(confidence)) < confidence)
        errors[draw] = np.abs(np.bincount(places, weights=confidence - right)).sum() / len(confidence)
    return ErrorByChance(mean=float(errors.mean()), high=float(np.quantile(errors, 0.95)))


def reliability_bins(margins: Mapping[Item, float]) -> list[ReliabilityBin]:
    """Per bin of confidence that has items: its edges, mean confidence, accuracy, users and items."""
    confidence, right, places = _decisions(margins)
    users = np.array([user for user, _ in margins])
    return [
        ReliabilityBin(
            low=0.5 + place / (2 * BINS),
            high=0.5 + (place + 1) / (2 * BINS),
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
            users=len(set(users[places == place])),
            items=int((places == place).sum()),
        )
        for place in sorted(set(places.tolist()))
    ]


def fitted_margins(margins: Mapping[Item, float]) -> dict[Item, float]:
    """Each user's margins times the scale that makes all other users' choices likeliest; none for a lone user."""
    by_user: dict[str, list[float]] = defaultdict(list)
    for (user, _), margin in margins.items():
        by_user[user].append(margin)
    if len(by_user) < 2:
        return {}
    scales = {user: _scale([m for other in by_user if other != user for m in by_user[other]]) for user in by_user}
    return {item: scales[item[0]] * margin for item, margin in margins.items()}


def _scale(margins: Sequence[float]) -> float:
    """The positive a that minimises the mean of log(1 + exp(-a m))."""
    margins_M = np.asarray(margins)
    spread = float(np.sqrt(np.mean(margins_M**2)))
    if spread == 0:
        return 1.0

    def loss(log_scale: float) -> float:
        return float(np.mean(np.logaddexp(0.0, -math.exp(log_scale) * margins_M / spread)))

    best = minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded")
    return math.exp(float(best.x)) / spread


def _decisions(margins: Mapping[Item, float]) -> tuple[Any, Any, Any]:
    """Of each margin: how sure the decision is, 0.5 to 1; whether it is right (0.5: there is none); and its bin."""
    margins_M = np.array(list(margins.values()), dtype=float)
    confidence_M = expit(np.abs(margins_M))
    right_M = np.where(margins_M == 0, 0.5, (margins_M > 0).astype(float))
    return confidence_M, right_M, np.minimum(BINS - 1, ((confidence_M - 0.5) * 2 * BINS).astype(int))


def _column(margins: Mapping[Item, float], values_M: Any, **how: Any) -> Column:
    return Column(dict(zip(margins, values_M.tolist(), strict=True)), **how)
