"""How many people a study needs: the chance that it finds a win rate, in the clustered one-sided test of its report.

A participant has a win rate of their own. Over participants its mean is the true win rate p, and its standard deviation
is `spread`, a parameter that has to be assumed. With n participants and m comparisons each, and a share `ties` of ties
which count as half, a vote has the variance v = p (1 - p) - ties / 4 and the mean over all votes the variance
(spread^2 + (v - spread^2) / m) / n. So more comparisons help only down to spread^2 / n; then only more people do.

The test is that of `p_above_half`: its error is that of a score test, 1 / sqrt(4 p (1 - p)) times that of the plain
one, so never smaller. Its power comes from the noncentral t distribution with n - 1 degrees of freedom.
`tests/study/test_power.py` compares it with simulated studies.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from scipy.special import bdtr, nctdtr, stdtrit

from fspo.errors import ConfigError
from fspo.evaluation.statistics.intervals import MINIMUM_USERS
from fspo.evaluation.statistics.power import Variation
from fspo.study.config import StudyConfig

__all__ = ["WIN_RATES", "Assumptions", "AttentionPlan", "StudyPlan", "participants_needed", "plan_study", "power_of"]

WIN_RATES = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
"""True win rates that a plan shows."""
_ALPHA = 0.05
_MOST = 100_000
_SLIP = 0.01
"""Share of attention items that attentive people fail by mistake; assumed."""


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted."""

    win_rate: float = 0.6
    """The smallest true win rate that the study should find."""
    spread: float = 0.15
    """Standard deviation of participants' own win rates; 0.15 means that two in three are within 15 points."""
    ties: float = 0.1
    """Share of ties."""
    lost: float = 0.15
    """Share of people who don't finish or are excluded."""
    power: float = 0.8
    """Chance to find `win_rate`."""

    def check(self) -> None:
        """Check that the values go together.

        Raises:
            ConfigError: one is outside of its range, or people can't differ that much.
        """
        for name, low, high in (("win_rate", 0.5, 1), ("power", _ALPHA, 1)):
            if not low < getattr(self, name) < high:
                raise ConfigError(f"{_option(name)} must be above {low:g} and below {high:g}.")
        for name in ("spread", "ties", "lost"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{_option(name)} must be at least 0 and below 1.")
        _variation(self.win_rate, self)


@dataclass(frozen=True)
class AttentionPlan:
    """Whom the rule on attention items (`exclusions.failed_attention`) excludes."""

    items: int
    """Attention items of each participant."""
    careless: float
    """Chance to exclude somebody who chooses at random between the two texts."""
    attentive: float
    """Chance to exclude somebody who fails one item in a hundred by mistake."""


@dataclass(frozen=True)
class StudyPlan:
    """How many people the study needs."""

    study: str
    assumptions: Assumptions
    pairs: int
    """Pairs of arms; with several, each is tested at 5% divided by their number."""
    comparisons: float
    """Comparisons of one pair by each participant who compares it."""
    planned: int
    """Participants in the study's file."""
    planned_power: dict[str, float]
    """True win rate -> the chance that the study as it is finds it."""
    needed: dict[str, int | None]
    """True win rate -> people to recruit; None: more than 100,000."""
    by_comparisons: dict[int, int | None]
    """Comparisons of each participant -> people to recruit for the win rate of the assumptions."""
    recommended: int | None
    """People to recruit for the win rate of the assumptions."""
    attention: AttentionPlan

    def to_json(self) -> dict[str, Any]:
        """The whole, ready for JSON."""
        plain: dict[str, Any] = TypeAdapter(StudyPlan).dump_python(self, mode="json")
        return plain


def power_of(
    win_rate: float, participants: int, comparisons: float, given: Assumptions, *, alpha: float = _ALPHA
) -> float:
    """The chance that a one-sided test at `alpha` finds a true win rate, which is above one half.

    The participants are those with votes that count, each with so many comparisons.

    Raises:
        ConfigError: people can't differ that much.
    """
    if participants < MINIMUM_USERS:
        return 0.0
    error = _variation(win_rate, given).error(participants, comparisons)
    if error == 0:
        return 1.0
    degrees = participants - 1
    critical = float(stdtrit(degrees, 1 - alpha)) / math.sqrt(4 * win_rate * (1 - win_rate))
    return 1 - float(nctdtr(degrees, (win_rate - 0.5) / error, critical))


def participants_needed(
    win_rate: float, comparisons: float, given: Assumptions, *, alpha: float = _ALPHA
) -> int | None:
    """The fewest participants with whom the power is at least `given.power`; None: more than 100,000."""

    def enough(count: int) -> bool:
        return power_of(win_rate, count, comparisons, given, alpha=alpha) >= given.power

    high = MINIMUM_USERS
    while not enough(high):
        if high > _MOST:
            return None
        high *= 2
    return bisect_left(range(high), True, lo=high // 2, key=enough)


def plan_study(config: StudyConfig, given: Assumptions) -> StudyPlan:
    """The plan of a study from its file.

    Raises:
        ConfigError: the assumptions don't go together.
    """
    given.check()
    pairs = len(config.pairs)
    alpha = _ALPHA / pairs

    def to_recruit(win_rate: float, count: int) -> int | None:
        found = participants_needed(win_rate, _per_pair(config, count), given, alpha=alpha)
        if found is None:
            return None
        return math.ceil(found * (pairs if config.assignment == "between" else 1) / (1 - given.lost))

    count = config.comparisons.count
    rates = [rate for rate in sorted({*WIN_RATES, given.win_rate}) if _possible(rate, given)]
    comparing = config.participants // pairs if config.assignment == "between" else config.participants
    left = math.floor(comparing * (1 - given.lost))
    return StudyPlan(
        study=config.name,
        assumptions=given,
        pairs=pairs,
        comparisons=_per_pair(config, count),
        planned=config.participants,
        planned_power={
            f"{rate:g}": power_of(rate, left, _per_pair(config, count), given, alpha=alpha) for rate in rates
        },
        needed={f"{rate:g}": to_recruit(rate, count) for rate in rates},
        by_comparisons={each: to_recruit(given.win_rate, each) for each in _near(count, _least(config))},
        recommended=to_recruit(given.win_rate, count),
        attention=_attention(config),
    )


def _attention(config: StudyConfig) -> AttentionPlan:
    items = config.labels.attention + config.comparisons.attention
    most = config.exclusions.failed_attention

    def excluded(failing: float) -> float:
        if most is None or most > items:
            return 0.0
        return 1 - float(bdtr(most - 1, items, failing))

    return AttentionPlan(items, excluded(0.5), excluded(_SLIP))


def _per_pair(config: StudyConfig, count: int) -> float:
    return count / len(config.pairs) if config.assignment == "within" else float(count)


def _least(config: StudyConfig) -> int:
    """With fewer comparisons a participant would not compare every pair."""
    return len(config.pairs) if config.assignment == "within" else 1


def _near(count: int, least: int) -> Sequence[int]:
    """Numbers of comparisons around the one in the file."""
    return sorted({max(least, number) for number in (count // 4, count // 2, count, 2 * count, 4 * count)})


def _possible(win_rate: float, given: Assumptions) -> bool:
    try:
        _variation(win_rate, given)
    except ConfigError:
        return False
    return True


def _variation(win_rate: float, given: Assumptions) -> Variation:
    """How votes vary between and within participants.

    Raises:
        ConfigError: people can't differ that much.
    """
    between = given.spread**2
    within = win_rate * (1 - win_rate) - given.ties / 4 - between
    if within < 0:
        raise ConfigError(
            f"With a win rate of {win_rate:.0%} and {given.ties:.0%} ties, people can't differ by {given.spread:g}; "
            "lower --spread or --ties."
        )
    return Variation(between, within)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
