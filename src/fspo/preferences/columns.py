"""Columns by the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fspo.preferences.validation import ColumnsError, missing_columns
from fspo.printing import column_option, nearest

__all__ = ["NAMES", "TIME", "TableNames", "as_messages", "match_columns", "rename", "time_column"]

NAMES: Mapping[str, tuple[str, ...]] = {
    "user": (
        *("user_id", "userid", "user_name", "username", "annotator", "annotator_id", "rater", "rater_id", "labeler"),
        *("labeler_id", "labeller", "worker", "worker_id", "person", "person_id", "participant", "participant_id"),
    ),
    "prompt": ("instruction", "question", "query", "input", "request", "user_prompt"),
    "chosen": (
        *("preferred", "chosen_response", "preferred_response", "response_chosen", "better"),
        "preferred_output",
    ),
    "rejected": (
        *("dispreferred", "not_preferred", "rejected_response", "dispreferred_response", "response_rejected"),
        *("worse", "non_preferred_output"),
    ),
}
"""fspo's name of a column -> other names for it, in small letters with underscores."""

TIME = ("time", "timestamp", "datetime", "date", "created_at", "created", "submitted_at", "updated_at", "rated_at")
"""Names of columns that say when a preference was given."""


@dataclass
class TableNames:
    """What one table calls fspo's columns. Its rows need not all have the same columns, as in JSON Lines."""

    file: str
    """What errors call the table."""
    named: Mapping[str, str] | None = None
    """Names that are known already; see `match_columns`."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: NAMES)
    """fspo's name of a column -> other names for it."""
    some: bool = False
    """Whether a row may lack columns of `named`."""
    _matched: dict[tuple[object, ...], dict[str, str]] = field(default_factory=dict)
    _first: dict[str, tuple[str, int]] = field(default_factory=dict)
    """fspo's name -> the table's, and the first row that has it."""

    @property
    def found(self) -> list[Mapping[str, str]]:
        """What `of` gave for the rows so far, once for rows with the same columns."""
        return list(self._matched.values())

    def of(self, row: Mapping[str, Any], number: int) -> Mapping[str, str]:
        """Match the columns of a row: fspo's name -> the row's; see `match_columns`.

        Raises:
            DataError: several columns could be one of fspo's, or earlier rows have it under another name.
        """
        key = (*row, _holds_prompt(row))
        if key not in self._matched:
            named = self.named or {}
            there = {ours: theirs for ours, theirs in named.items() if theirs in row} if self.some else named
            matched = match_columns(row, there, self.file, number, self.names)
            self._check_same(matched, row, number)
            self._matched[key] = matched
        return self._matched[key]

    def _check_same(self, matched: Mapping[str, str], row: Mapping[str, Any], number: int) -> None:
        for ours in self.names:
            theirs = matched.get(ours, ours if ours in row else "")
            before, earlier = self._first.setdefault(ours, (theirs, number)) if theirs else ("", 0)
            if theirs != before:
                what = f"'{theirs}' in this row, and '{before}' in row {earlier}; give it one name in all rows."
                raise ColumnsError(f"{self.file}, row {number}, column '{ours}': {what}")


def match_columns(
    found: Mapping[str, Any],
    named: Mapping[str, str] | None,
    file: str,
    number: int,
    names: Mapping[str, tuple[str, ...]] = NAMES,
) -> dict[str, str]:
    """Match fspo's names of columns with the table's: fspo's name -> the table's, where only one column can be meant.

    Args:
        found: a row of the table. If its responses are whole conversations, these begin with the prompt, and no column
            is matched with it.
        named: names that are known already.
        file: what errors call the table.
        number: the row that has these columns.
        names: fspo's name of a column -> other names for it.

    Raises:
        DataError: several columns could be one of fspo's.
    """
    matched = dict(named or {})
    free = [name for name in found if name not in matched.values()]
    for ours, others in names.items():
        if ours in matched or ours in free or (ours == "prompt" and _holds_prompt(found)):
            continue
        close = [name for name in free if _plain(name) == ours] or [name for name in free if _plain(name) in others]
        if len(close) > 1:
            which = " or ".join(f"'{name}'" for name in close)
            what = f"may be {which} of the columns {', '.join(free)}; choose with {column_option({ours: close[0]})}."
            raise ColumnsError(f"{file}, row {number}, column '{ours}': {what}")
        if close:
            matched[ours] = close[0]
            free.remove(close[0])
    return matched


def rename(row: dict[str, Any], columns: Mapping[str, str] | None, file: str, number: int) -> dict[str, Any]:
    """The row with fspo's names of columns.

    Raises:
        DataError: columns are missing, or a name would be there twice.
    """
    if not columns:
        return row
    lacking = [theirs for theirs in columns.values() if theirs not in row]
    if lacking:
        free = [name for name in row if name not in columns.values()]
        near = [name for theirs in lacking if (name := nearest(theirs, free))]
        hint = f"did you mean {' and '.join(map(repr, near))}? T" if near else "t"
        raise missing_columns(lacking, f"{hint}he row has the columns: {', '.join(row) or 'none'}.", file, number)
    kept = {name: value for name, value in row.items() if name not in columns.values()}
    for ours, theirs in columns.items():
        if ours in kept:
            raise ColumnsError(
                f"{file}, row {number}, column '{ours}': the row has '{theirs}' too, and only one of them can be "
                f"'{ours}'; rename the other, or leave it out."
            )
    return kept | {ours: row[theirs] for ours, theirs in columns.items()}


def time_column(columns: Iterable[str]) -> str:
    """The first column that says when a preference was given; the empty text where there is none."""
    by_name = {_plain(name): name for name in columns}
    return next((by_name[name] for name in TIME if name in by_name), "")


def as_messages(value: Any) -> Any:
    """The messages of an object: one of OpenAI's, or a table's that has a list for each part. Other values stay."""
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        return value["messages"]
    if (
        isinstance(value, Mapping)
        and value.keys() == {"role", "content"}
        and all(isinstance(part, list) for part in value.values())
    ):
        pairs = zip(value["role"], value["content"], strict=False)
        return [{"role": role, "content": content} for role, content in pairs]
    return value


def _holds_prompt(row: Mapping[str, Any]) -> bool:
    """Whether the responses are whole conversations, and not one message each."""
    chosen = as_messages(row.get("chosen"))
    return isinstance(chosen, list) and len(chosen) > 1


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().lower())
