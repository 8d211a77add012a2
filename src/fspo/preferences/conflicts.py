"""Rows of one user on the same pair: repeated ones, and ones that contradict each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from fspo.errors import DataError
from fspo.preferences.columns import time_column
from fspo.preferences.types import Preference
from fspo.preferences.validation import REPEAT, Problem, repeats_on_purpose
from fspo.printing import counted, option

__all__ = ["OnContradiction", "OnDuplicate", "Place", "Settled", "settle"]

OnDuplicate = Literal["fail", "skip", "keep"]
OnContradiction = Literal["fail", "newest", "drop"]

REPEATED = "rows with the user, prompt, pair and label of an earlier row"
CONTRADICTORY = "rows of a pair that its user labels both ways"

_SHOWN = 10
"""Rows that a sentence names at most."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a row is."""

    file: str
    row: int

    def beside(self, other: Place) -> str:
        """The row as a sentence about `other` names it, with the file where that is another one."""
        return f"row {self.row:,}" if self.file == other.file else str(self)

    def __str__(self) -> str:
        """File and row, for people."""
        return f"{self.file}, row {self.row:,}"


@dataclass(frozen=True)
class Settled:
    """The preferences that remain, and what became of the others."""

    preferences: tuple[Preference, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows."""
    first: Mapping[str, str] = field(default_factory=dict)
    """Reason -> where the first of these rows is."""
    notes: tuple[str, ...] = ()


def settle(
    preferences: Sequence[Preference],
    places: Sequence[Place],
    on_duplicate: OnDuplicate = "fail",
    on_contradiction: OnContradiction = "fail",
) -> Settled:
    """Decide about rows with the same user, prompt and pair of responses.

    Args:
        preferences: the rows.
        places: where each of them is.
        on_duplicate: rows with the same label: `skip` leaves out all but the first; `keep` keeps them, numbered in
            `source` as `repeat`; `fail` is an error.
        on_contradiction: rows with opposite labels: `newest` keeps the label of the newest row, by the column that says
            when it was given, or else the last row; `drop` leaves all of them out; `fail` is an error.

    Raises:
        DataError: naming the rows that `fail` refuses, or a row whose time can't be read.
    """
    groups: dict[tuple[str, str, frozenset[str]], list[int]] = defaultdict(list)
    for index, row in enumerate(preferences):
        groups[row.user, row.prompt, row.pair].append(index)
    several = [rows for rows in groups.values() if len(rows) > 1]
    contradictory = [rows for rows in several if len({preferences[index].chosen for index in rows}) > 1]
    refused = [] if on_contradiction != "fail" else [_refusal(contradictory, places, "contradict")]
    dropped: dict[int, str] = {}
    notes = []
    if contradictory and on_contradiction == "newest":
        when = _times(preferences, places, contradictory)
        by = f"by the column '{when.column}'" if when.column else "by the order of the rows"
        notes.append(f"Of contradictory rows the newest counts, {by}.")
        for rows in contradictory:
            newest = preferences[max(rows, key=lambda index: (when.times.get(index, 0.0), index))].chosen
            dropped |= {index: CONTRADICTORY for index in rows if preferences[index].chosen != newest}
    elif on_contradiction == "drop":
        dropped |= {index: CONTRADICTORY for rows in contradictory for index in rows}
    repeats = list(_repeats(preferences, several, dropped))
    marks = {index: number for rows in repeats for number, index in enumerate(rows, start=1) if number > 1}
    if on_duplicate == "fail":
        refused.append(_refusal(repeats, places, "repeat"))
    elif on_duplicate == "skip":
        dropped |= dict.fromkeys(marks, REPEATED)
    if any(refused):
        raise DataError(" ".join(filter(None, refused)))
    kept = tuple(_marked(row, marks.get(index, 1)) for index, row in enumerate(preferences) if index not in dropped)
    order = sorted(dropped)
    first = {dropped[index]: str(places[index]) for index in reversed(order)}
    return Settled(kept, Counter(dropped[index] for index in order), first, tuple(notes))


def _repeats(
    preferences: Sequence[Preference], groups: Sequence[list[int]], dropped: Mapping[int, str]
) -> Iterator[list[int]]:
    """Rows with the same label among those that remain."""
    for rows in groups:
        by_label: dict[str, list[int]] = defaultdict(list)
        for index in rows:
            if index not in dropped and not repeats_on_purpose(preferences[index]):
                by_label[preferences[index].chosen].append(index)
        yield from (same for same in by_label.values() if len(same) > 1)


def _marked(row: Preference, number: int) -> Preference:
    return row if number == 1 else replace(row, source={**row.source, REPEAT: number})


def _refusal(groups: Sequence[list[int]], places: Sequence[Place], verb: Literal["repeat", "contradict"]) -> str:
    """One sentence about all these rows, and what can be done."""
    pairs = sorted((places[index], places[rows[0]]) for rows in groups for index in rows[1:])
    if not pairs:
        return ""
    shown = "; ".join(f"{later} ({first.beside(later)})" for later, first in pairs[:_SHOWN])
    more = f"; and {len(pairs) - _SHOWN:,} more" if len(pairs) > _SHOWN else ""
    count = counted(len(pairs), "rows")
    if verb == "repeat":
        return (
            f"{count} with the user, prompt, pair and label of an earlier row: {shown}{more}. Delete them, or add "
            f"{option('on-duplicate', 'skip')} (leave them out) or {option('on-duplicate', 'keep')}."
        )
    return (
        f"{count} with the user, prompt and pair of an earlier row, and contradictory labels: {shown}{more}. Delete "
        f"one row of each contradiction, or add {option('on-contradiction', 'newest')} (the newest row counts) or "
        f"{option('on-contradiction', 'drop')} (none does)."
    )


@dataclass(frozen=True)
class _Times:
    column: str
    times: Mapping[int, float]


def _times(preferences: Sequence[Preference], places: Sequence[Place], groups: Sequence[list[int]]) -> _Times:
    """When the rows of these groups were given, in seconds, if a column of theirs says so."""
    indices = [index for rows in groups for index in rows]
    column = time_column(dict.fromkeys(name for index in indices for name in preferences[index].source))
    if not column:
        return _Times("", {})
    return _Times(column, {index: _seconds(preferences[index], column, places[index]) for index in indices})


def _seconds(row: Preference, column: str, place: Place) -> float:
    value = row.source.get(column)
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError("no time")
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip()
        if text.replace(".", "", 1).isdigit():
            return float(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        what = (
            f"must say when this contradictory row was given, as 2026-01-31 12:00 or in seconds, not {value!r:.40}; "
            f"correct it, or add {option('on-contradiction', 'drop')}."
        )
        raise Problem(place.row, column, what).error(place.file) from None
