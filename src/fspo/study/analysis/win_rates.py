"""Win rates of pairs of arms, with the paper's test and one that knows that a person's votes are alike.

The paper (arXiv 2502.19312) takes a one-sided binomial test: wins against a fair coin, ties left out. It counts every
vote as independent. A person's votes are not, so its p value is too small: a test at 5% with 11 votes a person and an
intraclass correlation of 0.1 has a false alarm in about 12% of studies. `WinRate.p` has the same null hypothesis, but
its error comes from the spread between people, as that of the interval does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import bdtrc, stdtr

from fspo.evaluation.statistics.comparing import holm
from fspo.evaluation.statistics.intervals import (
    MINIMUM_USERS,
    Estimate,
    Spread,
    clustered_mean,
    grouped,
    p_of_alike,
)
from fspo.study.analysis.exclusions import is_vote
from fspo.study.records import Item

__all__ = ["ArmPair", "WinRate", "binomial_p", "p_above_half", "score_estimate", "win_rates"]

ArmPair = tuple[str, str]
"""Two arms that are compared; the win rate is that of the first."""


@dataclass(frozen=True)
class WinRate:
    """How often people preferred the first arm of a pair."""

    first: str
    second: str
    estimate: Estimate
    """Mean score of the first arm, ties as half, with a 95% interval clustered by participant."""
    wins: int
    losses: int
    ties: int
    binomial_p: float | None
    """The paper's test, which counts votes as independent; None where all are ties."""
    p: float | None
    """One-sided, clustered by participant; None with fewer than three participants."""
    adjusted: float | None
    """`p` corrected for all pairs together (Holm)."""
    design_effect: float | None
    """How many times as large the variance is as that of independent votes; None where it can't be told."""


def win_rates(items: Sequence[Item], pairs: Sequence[ArmPair]) -> list[WinRate]:
    """The win rate of each pair that somebody voted on."""
    found = [rate for pair in pairs if (rate := _win_rate(items, pair)) is not None]
    adjusted = holm({(rate.first, rate.second): rate.p for rate in found})
    return [replace(rate, adjusted=adjusted[rate.first, rate.second]) for rate in found]


def score_estimate(items: Sequence[Item], pair: ArmPair) -> Estimate | None:
    """The mean score of the first arm over the votes on a pair; None without any."""
    scores, people = _scores(items, pair)
    return clustered_mean(scores, people) if scores else None


def binomial_p(wins: int, losses: int) -> float | None:
    """How often a fair coin wins at least so often; None without a win or a loss."""
    if not wins + losses:
        return None
    return float(bdtrc(wins - 1, wins + losses, 0.5)) if wins else 1.0


def p_above_half(scores: Sequence[float], people: Sequence[str]) -> float | None:
    """The one-sided p value of a mean score above one half, clustered by participant.

    It goes with `clustered_mean`: p is below 0.025 where the 95% interval lies above one half.
    """
    groups = grouped(scores, people)
    if len(groups) < MINIMUM_USERS:
        return None
    mean, spread = sum(scores) / len(scores), Spread.clustered(groups)
    if spread.none or not 0 < mean < 1:
        both = p_of_alike([score - 0.5 for score in scores], len(groups), (-0.5, 0.5))
        return both / 2 if mean >= 0.5 else 1 - both / 2
    trials = mean * (1 - mean) / spread.variance
    return float(stdtr(spread.degrees, (0.5 - mean) / (0.25 / trials) ** 0.5))


def _win_rate(items: Sequence[Item], pair: ArmPair) -> WinRate | None:
    scores, people = _scores(items, pair)
    if not scores:
        return None
    wins, losses = scores.count(1.0), scores.count(0.0)
    return WinRate(
        *pair,
        clustered_mean(scores, people),
        wins,
        losses,
        scores.count(0.5),
        binomial_p(wins, losses),
        p_above_half(scores, people),
        None,
        _design_effect(scores, people),
    )


def _scores(items: Sequence[Item], pair: ArmPair) -> tuple[list[float], list[str]]:
    scores, people = [], []
    for item in items:
        if item.arms == frozenset(pair) and is_vote(item):
            score = item.score(pair[0])
            assert score is not None
            scores.append(score)
            people.append(item.participant)
    return scores, people


def _design_effect(scores: Sequence[float], people: Sequence[str]) -> float | None:
    groups = grouped(scores, people)
    if len(groups) < MINIMUM_USERS or len(set(scores)) < 2:
        return None
    independent = Spread.clustered({number: [score] for number, score in enumerate(scores)})
    return Spread.clustered(groups).variance / independent.variance
