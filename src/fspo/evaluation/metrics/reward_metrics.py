"""Every measure that rests on rewards, of every method and reward model of the table, by item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fspo.evaluation.calibration import calibration_values, error_by_chance, fitted_margins, reliability_bins
from fspo.evaluation.ideal_observer.ceiling import Ceiling
from fspo.evaluation.ideal_observer.regret import Regrets, pair_regrets
from fspo.evaluation.metrics.measures import Rewards, reward_values
from fspo.evaluation.metrics.per_item import Measured
from fspo.evaluation.provenance import Provenance
from fspo.evaluation.robustness.measures import baseline_gains, few_shot_values, robustness_values
from fspo.evaluation.scoring.eval_episodes import Item

__all__ = ["calibrations", "reward_figures", "scaled_margins"]


def reward_figures(
    name: str,
    rewards: Mapping[str, Rewards],
    trained: Provenance,
    regrets: Regrets | None,
    ceiling: Ceiling | None,
) -> Measured:
    """All measures of one method; see docs/evaluation.md for what each means.

    Args:
        name: the method or reward model.
        rewards: of all of them.
        trained: how its policy was trained.
        regrets: where users' true rewards are known.
        ceiling: the ideal observer, where there is one.
    """
    row = rewards[name]
    full = row.config.shots
    margins = scaled_margins(row, trained)
    found = reward_values(row)
    found |= robustness_values(row) | few_shot_values(row, trained.shots) | baseline_gains(name, rewards)
    found |= calibration_values(margins)
    if fitted := fitted_margins(margins):
        found |= calibration_values(fitted, "/fitted")
    if regrets is not None:
        found |= pair_regrets(row.accuracies(row.headline, full), regrets.gaps)
    if ceiling is not None:
        found |= ceiling.shortfalls(row)
    return found


def calibrations(rewards: Mapping[str, Rewards], trained: Mapping[str, Provenance]) -> dict[str, dict[str, Any]]:
    """Method -> its reward, the scale of its margins, reliability by bins of confidence, and the error by chance."""
    found = {}
    for name, row in rewards.items():
        how = trained.get(name, Provenance())
        margins = scaled_margins(row, how)
        fitted = fitted_margins(margins)
        found[name] = {
            "reward": row.headline,
            "scale": _scale(row, how),
            "bins": reliability_bins(margins),
            "fitted_bins": reliability_bins(fitted),
            "error_by_chance": error_by_chance(margins),
            "fitted_error_by_chance": error_by_chance(fitted),
        }
    return found


def scaled_margins(row: Rewards, trained: Provenance) -> dict[Item, float]:
    """The headline reward's margins at the full shot count, times the scale that training has set."""
    scale = _scale(row, trained)
    margins = {item: row.margin(row.headline, item[1], row.config.shots) for item in row.items}
    return {item: scale * margin for item, margin in margins.items() if margin is not None}


def _scale(row: Rewards, trained: Provenance) -> float:
    return 1.0 if row.headline in ("likelihood", "score") else trained.scale(row.config.reduction)
