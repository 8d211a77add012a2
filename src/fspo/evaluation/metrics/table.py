"""What was measured of one method, item by item, and what is made of it: an estimate, and a figure for each user."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fspo.evaluation.artifacts import UserMean
from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.statistics.comparing import paired_difference
from fspo.evaluation.statistics.intervals import NO_INTERVAL, Estimate, clustered_mean

__all__ = ["Column", "Table", "compare_tables", "estimates", "missing_interval_note", "per_user"]

_COMPARED = ("reward_accuracy/", "win_rate/")
"""Measures whose variants (`reward_accuracy/reference`, `win_rate/plain`) are compared between methods."""

_MOST_NAMED = 3
_ABSOLUTE = "it is a mean of absolute differences; see what chance alone gives"


@dataclass(frozen=True)
class Column:
    """One measure: a number for each item that was measured, and the least and greatest it can be (None: anything)."""

    of: Mapping[Item, float]
    bounds: tuple[float, float] | None = (0.0, 1.0)
    most: float | None = None
    """What the mean can be at most, where that is less than an item's greatest."""
    absolute: bool = False
    """Whether the mean is one of absolute differences over all users, which has no interval, nor a figure for each."""
    over: Mapping[Item, float] | None = None
    """What the numbers are parts of: the measure is then their sum over the sum of these."""

    def __sub__(self, other: Column) -> Column:
        """The difference of two shares, on the items that both have."""
        return Column({item: self.of[item] - other.of[item] for item in self.of if item in other.of}, (-1.0, 1.0))

    def estimate(self) -> Estimate | None:
        """The mean over items with an interval clustered by user; None without items."""
        if not self.of:
            return None
        found = clustered_mean(self._values(), [user for user, _ in self.of], bounds=self.bounds)
        if self.most is not None and found.high is not None:
            found = replace(found, high=max(found.value, min(found.high, self.most)))
        return replace(found, low=None, high=None, lacking=_ABSOLUTE) if self.absolute else found

    def per_user(self) -> dict[str, UserMean]:
        """User -> {value, items}: the mean over the user's items, without an interval."""
        own: dict[str, list[Item]] = defaultdict(list)
        for item in () if self.absolute else self.of:
            own[item[0]].append(item)
        wholes = {user: math.fsum(self._over(item) for item in items) for user, items in own.items()}
        return {
            user: UserMean(value=math.fsum(self.of[item] for item in items) / wholes[user], items=len(items))
            for user, items in own.items()
            if wholes[user]
        }

    def _over(self, item: Item) -> float:
        return 1.0 if self.over is None else self.over[item]

    def _values(self) -> list[float]:
        """The numbers, or for a ratio R what has R as its mean and varies as R does: R + (y - R x) / mean x.

        The denominator varies with the items too: residuals from it make the linearised variance of a ratio (Cochran
        1977, section 6.3).
        """
        if self.over is None:
            return list(self.of.values())
        whole = math.fsum(map(self._over, self.of))
        ratio, mean = math.fsum(self.of.values()) / whole, whole / len(self.of)
        return [ratio + (value - ratio * self.over[item]) / mean for item, value in self.of.items()]


Table = dict[str, Column]
"""Measure -> column, of one method."""


def estimates(table: Table) -> dict[str, Estimate]:
    """Measure -> estimate, of those that have items."""
    found = ((measure, column.estimate()) for measure, column in table.items())
    return {measure: estimate for measure, estimate in found if estimate is not None}


def per_user(table: Table) -> dict[str, dict[str, UserMean]]:
    """Measure -> user -> {value, items}, of those that have such figures."""
    found = ((measure, column.per_user()) for measure, column in table.items())
    return {measure: users for measure, users in found if users}


def missing_interval_note(found: Iterable[tuple[str, Estimate]]) -> str:
    """A sentence where there is too little for intervals, which names the measures; empty where all have theirs."""
    lacking: dict[str, dict[str, None]] = defaultdict(dict)
    for measure, estimate in found:
        if estimate.note and estimate.lacking != _ABSOLUTE:
            lacking[estimate.note][_in_words(measure)] = None
    notes = []
    for note, measures in sorted(lacking.items()):
        named, more = ", ".join(list(measures)[:_MOST_NAMED]), len(measures) - _MOST_NAMED
        said = f"{named}{f' and {more} more' if more > 0 else ''}{note.removeprefix(NO_INTERVAL)}"
        notes.append(f"{NO_INTERVAL.capitalize()} for {said}.")
    return " ".join(notes)


def _in_words(measure: str) -> str:
    """A measure of `metrics.json` for people: `label_flip_rate/correct` is `label flip rate (correct)`."""
    name, _, variant = measure.replace("_", " ").partition("/")
    return f"{name} ({variant})" if variant else name


def compare_tables(
    lead: str, tables: Mapping[str, Table], headlines: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Estimate]]:
    """Method -> measure -> `lead` less that method, with intervals of the paired differences.

    Measures are named as in `metrics.json`, with their variant. Those without one are the headlines, where both methods
    have the same one: `headlines` is measure -> method -> variant.
    """
    found = {}
    for name, table in tables.items():
        if name == lead:
            continue
        rows = {
            measure: paired_difference(column.of, table[measure].of)
            for measure, column in tables[lead].items()
            if measure.startswith(_COMPARED) and measure in table and column.of.keys() & table[measure].of.keys()
        }
        same = {
            measure: rows[f"{measure}/{variants[name]}"]
            for measure, variants in headlines.items()
            if variants.get(lead) == variants.get(name) and f"{measure}/{variants.get(name)}" in rows
        }
        found[name] = same | rows
    return found
