"""The page in a handful of sentences, for those who read no further; by rule, the bad news among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fspo.evaluation.findings import Metrics
from fspo.evaluation.statistics import Estimate

__all__ = ["in_short"]


def in_short(metrics: Metrics, ceiling: Estimate | None, sections: Mapping[str, Any], lead: str) -> list[str]:
    """Sentences on `lead`: who else stands near, what is left to the ceiling, labels, users, answers, cost.

    Args:
        metrics: of all methods.
        ceiling: the ideal observer's accuracy at the full shot count, where there is one.
        sections: of the page, as `fspo.evaluation.report.page` makes them.
        lead: the method the page is about.
    """
    row = metrics.get(lead, {})
    found = [
        _rivals(sections["paired"], sections["accuracy_rank"], lead),
        _ceiling(row.get("reward_accuracy"), ceiling),
        _labels(row),
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
    beaten = [
        name for name, row in paired.items() if row.comparison.significant and row.comparison.difference.value > 0
    ]
    better = [
        name for name, row in paired.items() if row.comparison.significant and row.comparison.difference.value < 0
    ]
    alike = [name for name in paired if name not in (*beaten, *better)]
    parts = [f"is better than {_listed(beaten)}"] if beaten else []
    parts += [f"is worse than {_listed(better)}"] if better else []
    parts += [f"can't be told from {_listed(alike)}"] if alike else []
    return f"In reward accuracy on the same pairs, {lead} {'; it '.join(parts)} (p below 0.05 after Holm's correction)."


def _ceiling(accuracy: Estimate | None, ceiling: Estimate | None) -> str:
    if accuracy is None or ceiling is None:
        return ""
    return (
        f"An ideal observer of the same shots ranks {ceiling.value:.1%} right; "
        f"{max(0.0, ceiling.value - accuracy.value) * 100:.1f} points are left to it."
    )


def _labels(row: Mapping[str, Estimate]) -> str:
    flips, drop = row.get("label_flip_rate"), row.get("user_swap_drop")
    if flips is None:
        return ""
    text = f"Flipping every label in the context changes {flips.value:.1%} of its decisions{_within(flips)}"
    if drop is None:
        return f"{text}."
    does = "cost" if drop.value >= 0 else "bring"
    return f"{text}; another user's shots {does} it {abs(drop.value) * 100:.1f} points{_within(drop, does == 'bring')}."


def _users(per_user: Mapping[str, Any], lead: str) -> str:
    if not per_user.get("users"):
        return ""
    return f"Of {per_user['users']} users, {per_user['at_chance']} are served no better than by a coin."


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
    parts = [f"{row[m].value * 100:.1f} points of {label}{_within(row[m])}" for m, label in named.items() if m in row]
    return f"What it loses against the base model: {_listed(parts)}." if parts else ""


def _within(estimate: Estimate, turned: bool = False) -> str:
    """The interval in percent or points, with the sign that the sentence has; or why there is none."""
    if estimate.low is None or estimate.high is None:
        return " (too few for an interval)"
    ends = sorted((-estimate.low, -estimate.high) if turned else (estimate.low, estimate.high))
    return f" ({ends[0] * 100:.1f} to {ends[1] * 100:.1f})"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
