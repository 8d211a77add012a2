"""The page in a handful of sentences, for those who read no further; by rule, the bad news among them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fspo.evaluation.findings import Metrics
from fspo.evaluation.statistics import Comparison, Estimate
from fspo.evaluation.summary import single_context_reward, variants_of
from fspo.evaluation.wording import limits, listed, percent, points

__all__ = ["in_short"]

_MOSTLY_ALIKE = 0.65
"""What the observer ranks right without a shot from which it has to be said."""
_FEW_PAIRS = 10
"""Pairs of a user below which it has to be said that they are few."""


def in_short(
    metrics: Metrics,
    ceiling: Estimate | None,
    sections: Mapping[str, Any],
    lead: str,
    details: Mapping[str, Any] = MappingProxyType({}),
    *,
    unshown: Estimate | None = None,
) -> list[str]:
    """Sentences on `lead`: who else stands near, what is left to the ceiling, labels, users, answers, cost.

    Args:
        metrics: of all methods.
        ceiling: the ideal observer's accuracy at the full shot count, where there is one.
        sections: of the page, as `fspo.evaluation.report.page` makes them.
        lead: the method the page is about.
        details: the contents of `details.json`, which name the rewards.
        unshown: the ideal observer's accuracy without any shot, where it was measured.
    """
    row = metrics.get(lead, {})
    found = [
        _rivals(sections["paired"], sections["accuracy_rank"], lead),
        _ceiling(row.get("reward_accuracy"), ceiling, unshown),
        _labels(row, single_context_reward(details, lead), variants_of(details, lead).get("reward", "")),
        _users(sections["per_user"], lead),
        _answers(sections["answers_rank"], lead),
        _cost(row),
    ]
    return [sentence for sentence in found if sentence]


def _rivals(paired: Mapping[str, Any], ranked: Mapping[str, Any], lead: str) -> str:
    others = [name for name in ranked.get("order", ()) if name != lead]
    if not others:
        return ""
    if not paired:
        order = list(ranked["order"])
        place = order.index(lead) if lead in order else len(order)
        beside = [f"after {order[place - 1]}"] if place else []
        beside += [f"before {order[place + 1]}"] if place + 1 < len(order) else []
        return f"In reward accuracy {lead} stands {place + 1} of {len(order)}, {' and '.join(beside)}."
    of: dict[str, list[str]] = {"better": [], "worse": [], "alike": [], "untested": []}
    for name, row in paired.items():
        of[_word(row.comparison)].append(name)
    told = [f"{word} than {listed(of[word])}" for word in ("better", "worse") if of[word]]
    parts = [f"is {' and '.join(told)} (p below 0.05 after Holm's correction)"] if told else []
    parts += [f"can't be told from {listed(of['alike'])}"] if of["alike"] else []
    parts += [f"has too few users to be compared with {listed(of['untested'])}"] if of["untested"] else []
    return f"In reward accuracy on the same pairs, {lead} {'; it '.join(parts)}."


def _word(comparison: Comparison) -> str:
    """How the lead compares; untested where too few users leave no p value."""
    if comparison.adjusted is None:
        return "untested"
    if not comparison.significant:
        return "alike"
    return "better" if comparison.difference.value > 0 else "worse"


def _ceiling(accuracy: Estimate | None, ceiling: Estimate | None, unshown: Estimate | None) -> str:
    if accuracy is None or ceiling is None:
        return ""
    return (
        f"An ideal observer of the same shots ranks {percent(ceiling.value)} right; "
        f"{points(max(0.0, ceiling.value - accuracy.value))} are left to it.{_alike(unshown)}"
    )


def _alike(unshown: Estimate | None) -> str:
    """Where users agree so much that little is left to personalise, which no figure of a method tells."""
    if unshown is None or unshown.value < _MOSTLY_ALIKE:
        return ""
    return f" It ranks {percent(unshown.value)} right without any shot: so far these users are alike."


def _labels(row: Mapping[str, Estimate], flipped: str, headline: str) -> str:
    """On labels and users, each by the reward that it is of: `flipped` of a single context, the other the headline."""
    flips, drop = row.get("label_flip_rate"), row.get("user_swap_drop")
    if flips is None:
        return ""
    by = f"By the {flipped} reward, flipping" if flipped else "Flipping"
    text = f"{by} every label in the context changes {percent(flips.value)} of the decisions{_within(flips)}"
    if drop is None:
        return f"{text}."
    by = f"by the {headline} one, " if headline and headline != flipped else ""
    does = "cost" if drop.value >= 0 else "bring"
    return (
        f"{text}; {by}another user's shots {does} {points(abs(drop.value))} of accuracy"
        f"{_within(drop, turned=does == 'bring')}."
    )


def _users(per_user: Mapping[str, Any], lead: str) -> str:
    if not per_user.get("users"):
        return ""
    served, users = per_user["at_chance"], per_user["users"]
    of = f"Of {users} users, {served}" if users > 1 else f"Of 1 user, {served}"
    pairs = per_user.get("pairs", 0)
    few = f", going by {pairs} {'pair' if pairs == 1 else 'pairs'} each, where chance has much part" if pairs else ""
    return f"{of} {'is' if served == 1 else 'are'} served no better than by a coin{few if pairs < _FEW_PAIRS else ''}."


def _answers(rank: Mapping[str, Any], lead: str) -> str:
    place = next((row for row in rank.get("rows", ()) if row["method"] == lead), None)
    if place is None or not place["ranks"]:  # an order without ranges is none
        return ""
    ranks = f", between {place['ranks'].replace(' to ', ' and ')} by 95 % limits" if " to " in place["ranks"] else ""
    return f"By whose answers users prefer it ranks {place['rank']} of {len(rank['rows'])}{ranks}."


def _cost(row: Mapping[str, Estimate]) -> str:
    named = {
        "tax_general": "general instructions followed",
        "tax_open": "preference on open instructions",
        "tax_refusal": "harmful requests refused",
    }
    parts = [f"{points(row[m].value)} of {label}{_within(row[m])}" for m, label in named.items() if m in row]
    return f"What it loses against the base model: {listed(parts)}." if parts else ""


def _within(estimate: Estimate, *, turned: bool = False) -> str:
    """The interval in percent or points, with the sign that the sentence has; or that there is none."""
    ends = limits(estimate, turned=turned)
    return f" ({ends[0]} to {ends[1]})" if ends else " (too few for an interval)"
