"""What came out against a method: sentences for the report, by rule, whoever the method is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fspo.evaluation.findings import Metrics
from fspo.evaluation.statistics import Comparison, Estimate
from fspo.evaluation.summary import single_context_reward
from fspo.evaluation.wording import listed, number, percent, points, said_percent, said_points
from fspo.methods.table import METHODS

__all__ = ["RULES", "Standings", "negatives"]

RULES = (
    "nobody is better than the leading method, on the same pairs or by answers; every accuracy, win rate, swap drop "
    "and gain that has a bar to clear (a coin, nothing, a baseline) has an interval and clears it; no loss under worse "
    "shots, against the observer or to personalisation is above 0; no reward is surer than right, or worse calibrated "
    "than chance allows; the labels matter; no shots were left out; no judgement contradicted itself or named neither "
    "answer; and no answer fell below a floor"
)
"""What was looked for, in words, for a page on which nothing was found."""

_BASE = "base"
_CHANCE: Mapping[str, float] = MappingProxyType(
    {
        "reward_accuracy": 0.5,
        "win_rate": 0.5,
        "win_rate_without_floors": 0.5,
        "win_rate_length_controlled": 0.5,
        "win_rate_matched": 0.5,
        "win_rate_weighted": 0.5,
        "win_rate_by": 0.5,
        "user_swap_drop": 0.0,
    }
)
"""Family of measures -> what a coin, or a method that knows no user, would have."""
_GAINS: Mapping[str, str] = MappingProxyType(
    {
        "gain_over_population": "the model of the whole population",
        "gain_over_no_context": "itself without shots",
        "gain_over_oracle": "the untrained model that is told the user's description",
        "first_shot_gain": "itself without shots, from one shot",
        "beyond_training_gain": "itself with as many shots as it was trained on, from more of them",
    }
)
"""Measure -> whom a method that personalises is to be better than."""
_LOSSES: Mapping[str, str] = MappingProxyType(
    {
        "tax_general": "of general instructions followed",
        "tax_refusal": "of harmful requests refused",
        "tax_open": "of preference on open instructions, before a judge who knows no user,",
        "wrong_labels_drop": "of reward accuracy where labels are wrong",
        "other_topics_drop": "of reward accuracy where the shots are on other topics than the query",
        "shortfall": "of reward accuracy to an ideal observer of the same shots",
    }
)
_TAXED: Mapping[str, str] = MappingProxyType(
    {
        "": "against the base model",
        "injected": "against the base model, with such requests in the shots",
        "bare": "against the base model, without any shot",
        "training": "against the untrained weights given the same shots",
    }
)
_KNOWN_FLIP_RATE = 0.14
"""What a trained in-context reward model was found to reach; it had learned contents, not labels."""


@dataclass(frozen=True)
class Standings:
    """Who stands where, besides the figures of single methods."""

    lead: str = ""
    """The method that the page is about."""
    paired: Mapping[str, Comparison] = field(default_factory=dict)
    """Method -> the lead less that method in reward accuracy on the same pairs."""
    ranked: Sequence[Mapping[str, Any]] = ()
    """Methods by their answers, the strongest first: `method`, `rank`, `ranks` and `estimate` of each."""
    each_other: bool = False
    """Whether methods' answers met each other's in `ranked`, and not the base model's alone."""
    calibration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The contents of `calibration.json`."""


def negatives(metrics: Metrics, details: Mapping[str, Any], standings: Standings | None = None) -> list[str]:
    """Everything that came out against a method, each sentence with the method in front; see `RULES`.

    Args:
        metrics: of all methods.
        details: the contents of `details.json`.
        standings: who stands where.
    """
    standings = standings or Standings()
    found = [*_beaten(standings), *_ranked(standings)]
    for name, measures in metrics.items():
        if name != _BASE:  # the yardstick
            found += [
                *_at_chance(name, measures),
                *_without_gain(name, measures),
                *_losses(name, measures, details),
                *_uncalibrated(name, measures, standings.calibration.get(name, {})),
                *_without_flips(name, measures, details),
            ]
    for name, dropped in details.get("dropped_shots", {}).items():
        if dropped:
            found.append(f"{name}: {dropped} shots had to be left out because the context was too long.")
    for name, counts in details.get("judgements", {}).items():
        found += _judged(name, counts)
    return found


def _beaten(standings: Standings) -> list[str]:
    """Whom the lead is worse than on the same pairs."""
    found = []
    for name, comparison in standings.paired.items():
        if comparison.significant and comparison.difference.value < 0:
            found.append(
                f"{standings.lead}: is worse than {name} in reward accuracy on the same pairs, by "
                f"{said_points(comparison.difference, turned=True)}."
            )
    return found


def _ranked(standings: Standings) -> list[str]:
    """Whose answers users prefer to the lead's, and whose they can't be told to prefer to the base model's."""
    found = []
    own = next((row for row in standings.ranked if row["method"] == standings.lead), None)
    if own is not None and own["rank"] > 1:
        before = [row["method"] for row in standings.ranked if row["rank"] < own["rank"]]
        ranks = f" (ranks {own['ranks']} by 95 % limits)" if own["ranks"] else ""
        found.append(
            f"{standings.lead}: ranks {own['rank']} of {len(standings.ranked)} by whose answers users prefer{ranks}, "
            f"behind {listed(before)}."
        )
    for row in standings.ranked if standings.each_other else ():
        if row["method"] != _BASE:
            said = "chance to be preferred to the base model's answer by the ranking of all"
            found += _against_chance(row["method"], said, row["estimate"], 0.5, shares=True)
    return found


def _at_chance(name: str, measures: Mapping[str, Estimate]) -> list[str]:
    """Figures that a coin would have too, or worse ones; every variant but the plain likelihood."""
    found = []
    for measure, estimate in measures.items():
        family, _, variant = measure.partition("/")
        headline = not variant and any(other.startswith(f"{family}/") for other in measures)
        if family not in _CHANCE or variant == "likelihood" or "@" in variant or headline:
            continue
        label = family.replace("_", " ") + (f" ({variant.replace('/', ', ')})" if variant else "")
        found += _against_chance(name, label, estimate, _CHANCE[family], shares=family != "user_swap_drop")
    return found


def _against_chance(name: str, label: str, estimate: Estimate, chance: float, *, shares: bool) -> list[str]:
    said = said_percent(estimate) if shares else said_points(estimate)
    bar = percent(chance, 0) if shares else "0"
    if estimate.low is None or estimate.high is None:
        return [f"{name}: the {label} of {said} has no interval, from {_users(estimate)}."]
    if estimate.high < chance:
        return [f"{name}: the {label} of {said} lies below {bar}."]
    return [f"{name}: the {label} of {said} can't be told from {bar}."] if estimate.low <= chance else []


def _without_gain(name: str, measures: Mapping[str, Estimate]) -> list[str]:
    found = []
    for measure, whom in _GAINS.items():
        gain = measures.get(measure)
        if gain is None:
            continue
        if gain.high is not None and gain.high < 0:
            found.append(f"{name}: is worse in reward accuracy than {whom}, by {said_points(gain, turned=True)}.")
        elif gain.low is None or gain.low <= 0:
            why = f", without an interval from {_users(gain)}" if gain.low is None else ""
            found.append(f"{name}: no gain in reward accuracy over {whom} can be told ({said_points(gain)}{why}).")
    return found


def _losses(name: str, measures: Mapping[str, Estimate], details: Mapping[str, Any]) -> list[str]:
    found = []
    for measure, loss in measures.items():
        family, _, variant = measure.partition("/")
        if family not in _LOSSES or loss.low is None or loss.low <= 0:
            continue
        if family == "shortfall" and not _sees_shots(name, measures, details):
            continue  # which the observer sees, and this method doesn't
        more = ""
        if family.startswith("tax_"):
            more = f" {_TAXED.get(variant, f'({variant})')}"
        elif variant:
            more = f" ({variant} of them)"
        found.append(f"{name}: loses {said_points(loss)} {_LOSSES[family]}{more}.")
    if (fluency := measures.get("tax_fluency")) is not None and fluency.low is not None and fluency.low > 0:
        low, high = number(fluency.low, 2), number(fluency.high or 0.0, 2)
        found.append(
            f"{name}: its answers to general instructions are less fluent than the base model's, by "
            f"{number(fluency.value, 2)} [{low}, {high}] nats a token."
        )
    return found


def _sees_shots(name: str, measures: Mapping[str, Estimate], details: Mapping[str, Any]) -> bool:
    """Whether shots are in the method's context: by the table, or for others by what was measured of them."""
    if name in METHODS:
        return METHODS[name].context in ("shots", "both")
    return "label_flip_rate" in measures or "antisymmetric" in details.get("rewards", {}).get(name, ())


def _uncalibrated(name: str, measures: Mapping[str, Estimate], record: Mapping[str, Any]) -> list[str]:
    found = []
    for suffix, kind, margins in (("", "", "margins"), ("/fitted", "fitted_", "fitted margins")):
        surer = measures.get(f"overconfidence{suffix}")
        if surer is not None and surer.low is not None and surer.low > 0:
            found.append(f"{name}: its {margins} are surer than right, by {said_points(surer)}.")
        error = measures.get(f"calibration_error{suffix}")
        by_chance = record.get(f"{kind}error_by_chance") or {}
        if error is not None and by_chance and error.value > by_chance["high"]:
            found.append(
                f"{name}: the calibration error of its {margins}, {points(error.value)}, is above the "
                f"{number(by_chance['high'] * 100)} that chance alone exceeds in one of twenty."
            )
    return found


def _without_flips(name: str, measures: Mapping[str, Estimate], details: Mapping[str, Any]) -> list[str]:
    flips = measures.get("label_flip_rate")
    if flips is None or flips.value >= 0.5:
        return []
    reward = single_context_reward(details, name)
    by = f" by the {reward} reward" if reward else ""
    known = " (a reward model that ignored labels was at 14 %)" if flips.value <= _KNOWN_FLIP_RATE else ""
    return [
        f"{name}: flipping every label in the context changes only {said_percent(flips)} of its decisions{by}{known}."
    ]


def _judged(name: str, counts: Mapping[str, int]) -> list[str]:
    """What is to be said of the comparisons of one method's answers."""
    items, found = counts.get("items", 0), []
    if counts.get("inconsistent"):
        found.append(
            f"{name}: the judge contradicted itself when the order was swapped on {counts['inconsistent']} of "
            f"{items} comparisons; each counts as a tie."
        )
    if rejects := counts.get("unreadable", 0) + counts.get("refused", 0):
        found.append(
            f"{name}: the judge named neither answer on {rejects} of {items} comparisons, which are left "
            f"out ({counts.get('refused', 0)} of them were refused)."
        )
    if counts.get("base_below_floor"):
        found.append(
            f"{name}: the base model's answer fell below a floor on {counts['base_below_floor']} of {items} "
            "comparisons; each that the method's own answer did not fall below was won for nothing."
        )
    if counts.get("below_floor"):
        found.append(f"{name}: {counts['below_floor']} of {items} answers fell below a floor and did not win.")
    return found


def _users(estimate: Estimate) -> str:
    return "1 user" if estimate.users == 1 else f"{estimate.users} users"
