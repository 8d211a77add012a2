"""The page in a handful of figures, for those who read no further."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from fspo.evaluation.metrics.summary import single_context_reward, variants_of
from fspo.evaluation.report.findings import Metrics
from fspo.evaluation.report.formatting import join_names, limits, percent, points
from fspo.evaluation.statistics import Comparison, Estimate

__all__ = ["in_short"]

_MOSTLY_ALIKE = 0.65
"""The observer's accuracy without a shot above which users mostly agree."""
_FEW_PAIRS = 10
"""Pairs of a user below which chance plays a large part."""
_COSTS = {
    "tax_general": "general instructions followed less often than by base",
    "tax_open": "open answers preferred less often than base's",
    "tax_refusal": "harmful requests refused less often than by base",
}


def in_short(
    metrics: Metrics,
    observer: Mapping[str, Estimate],
    sections: Mapping[str, Any],
    lead: str,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, str]:
    """Label -> figure of `lead`: its rivals, the ceiling, labels, users, answers, cost.

    Args:
        metrics: of all methods.
        observer: the ideal observer's figures, where there is one.
        sections: of the page, as `fspo.evaluation.report.page` makes them.
        lead: the method the page is about.
        details: the contents of `details.json`, which name the rewards.
    """
    row = metrics.get(lead, {})
    return dict(
        (
            *_rivals(sections["paired"], sections["accuracy_rank"], lead),
            *_ceiling(row.get("reward_accuracy"), observer.get("reward_accuracy"), observer.get("reward_accuracy@0")),
            *_labels(row, single_context_reward(details, lead), variants_of(details, lead).get("reward", "")),
            *_users(sections["per_user"]),
            *_answers(sections["answers_rank"], lead),
            *((label, f"{points(row[m].value)}{_within(row[m])}") for m, label in _COSTS.items() if m in row),
        )
    )


def _rivals(paired: Mapping[str, Comparison], ranked: Mapping[str, Any], lead: str) -> Iterator[tuple[str, str]]:
    order = list(ranked.get("order", ()))
    if not paired:
        if len(order) > 1 and lead in order:
            yield "rank by reward accuracy", f"{order.index(lead) + 1} of {len(order)}"
        return
    groups: dict[str, list[str]] = {
        "more accurate than": [],
        "less accurate than": [],
        "not distinguishable in accuracy from": [],
        "too few users to compare with": [],
    }
    for name, comparison in paired.items():
        groups[_group(comparison)].append(name)
    yield from ((label, join_names(names)) for label, names in groups.items() if names)


def _group(comparison: Comparison) -> str:
    """How the lead compares on the same pairs; untested where too few users leave no p value."""
    if comparison.adjusted is None:
        return "too few users to compare with"
    if not comparison.significant:
        return "not distinguishable in accuracy from"
    return "more accurate than" if comparison.difference.value > 0 else "less accurate than"


def _ceiling(
    accuracy: Estimate | None, ceiling: Estimate | None, unshown: Estimate | None
) -> Iterator[tuple[str, str]]:
    if accuracy is None or ceiling is None:
        return
    left = points(max(0.0, ceiling.value - accuracy.value))
    yield "accuracy of an ideal observer of the same shots", f"{percent(ceiling.value)}, {left} higher"
    if unshown is not None and unshown.value >= _MOSTLY_ALIKE:
        yield "its accuracy without any shot", f"{percent(unshown.value)}: users mostly agree on these pairs"


def _labels(row: Mapping[str, Estimate], flipped: str, headline: str) -> Iterator[tuple[str, str]]:
    """On labels and users, each by the reward that it is of: `flipped` of a single context, the other the headline."""
    for measure, label, form, reward in (
        ("label_flip_rate", "decisions that change with flipped labels", percent, flipped),
        ("user_swap_drop", "accuracy lost with another user's shots", points, headline),
    ):
        if (found := row.get(measure)) is not None:
            yield label, f"{form(found.value)}{_within(found)}{f', {reward} reward' if reward else ''}"


def _users(per_user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not per_user.get("users"):
        return
    pairs = per_user.get("pairs", 0)
    few = f", with {pairs} {'pair' if pairs == 1 else 'pairs'} each: chance plays a large part"
    said = f"{per_user['at_chance']} of {per_user['users']}"
    yield "users served no better than by a coin", said + (few if 0 < pairs < _FEW_PAIRS else "")


def _answers(rank: Mapping[str, Any], lead: str) -> Iterator[tuple[str, str]]:
    place = next((row for row in rank.get("rows", ()) if row["method"] == lead), None)
    if place is not None and place["ranks"]:  # a rank without its limits says nothing
        limited = f" (95% limits: {place['ranks']})" if " to " in place["ranks"] else ""
        yield "rank by whose answers users prefer", f"{place['rank']} of {len(rank['rows'])}{limited}"


def _within(estimate: Estimate) -> str:
    """The interval in percent or points; or that there is none."""
    ends = limits(estimate)
    return f" ({ends[0]} to {ends[1]})" if ends else " (too few users for an interval)"
