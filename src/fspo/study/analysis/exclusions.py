"""Whose votes the main analysis leaves out, and why; the rules are in the study's file, and so in its registration.

Each rule has a stated chance to hit an attentive person: none fails an obvious item on purpose, and sides are random.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from scipy.special import bdtrc

from fspo.study.config import Exclusions
from fspo.study.records import Item, Participant, StudyRecords

__all__ = ["REASONS", "Exclusion", "Reason", "exclusions_of", "is_vote", "items_by_participant", "seconds_of"]

Reason = Literal["withdrawn", "quota", "unfinished", "attention", "one side", "too fast"]
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True)
class Exclusion:
    """One participant whose votes the main analysis leaves out."""

    participant: str
    reasons: tuple[Reason, ...]


def exclusions_of(records: StudyRecords, rules: Exclusions) -> list[Exclusion]:
    """Everybody who is left out, with all reasons, in the order of the participants."""
    items = items_by_participant(records.items)
    found = [Exclusion(one.id, tuple(_reasons(one, items.get(one.id, ()), rules))) for one in records.participants]
    return [exclusion for exclusion in found if exclusion.reasons]


def items_by_participant(items: Iterable[Item]) -> Mapping[str, Sequence[Item]]:
    """Participant -> items, in their order."""
    found: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        found[item.participant].append(item)
    return found


def is_vote(item: Item) -> bool:
    """Whether there is a choice between two texts that were shown. An outage or an item without a choice is no vote."""
    return item.choice is not None and bool(item.first) and bool(item.second)


def seconds_of(item: Item) -> float | None:
    """From when the item was first shown to the vote that counts; None without both."""
    if item.voted is None or item.shown is None:
        return None
    return max(0, item.voted - item.shown) / 1000


def _reasons(one: Participant, items: Sequence[Item], rules: Exclusions) -> Iterable[Reason]:
    if one.withdrawn is not None:
        yield "withdrawn"
        return
    asked = [item for item in items if item.stage != "practice"]
    votes = [item for item in asked if is_vote(item)]
    if one.closed:
        yield "quota"
    elif rules.unfinished and one.finished is None and len(votes) < max(1, len(asked)):
        yield "unfinished"
    failed = sum(item.attention and item.choice != item.right for item in votes)
    if rules.failed_attention is not None and failed >= rules.failed_attention:
        yield "attention"
    if rules.one_side is not None and _chance_of_sides(votes) <= rules.one_side:
        yield "one side"
    if rules.words_per_minute is not None and _typical_speed(votes) > rules.words_per_minute:
        yield "too fast"


def _chance_of_sides(votes: Sequence[Item]) -> float:
    """How probable it is that a fair coin favours one side at least as much as these votes; ties have no side."""
    sides = Counter(item.choice for item in votes if item.choice != "tie")
    count = sides.total()
    if not count:
        return 1.0
    return min(1.0, 2 * float(bdtrc(max(sides.values()) - 1, count, 0.5)))


def _typical_speed(votes: Sequence[Item]) -> float:
    """Median words per minute at which the items were read; 0 where no times are known."""
    speeds = []
    for item in votes:
        seconds = seconds_of(item)
        if seconds is not None and not item.attention:
            words = len(f"{item.prompt} {item.first} {item.second}".split())
            speeds.append(60 * words / max(seconds, 1e-3))
    return statistics.median(speeds) if speeds else 0.0
