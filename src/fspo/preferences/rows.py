"""One row of somebody else's table: its columns read as text, ids, numbers and booleans, and never as anything else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fspo.errors import DataError
from fspo.preferences.validation import Problem, json_value

__all__ = ["Row", "finite"]

_FLAGS: Mapping[str, bool] = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
_LARGEST = 1e100
"""The largest number that is taken for a measurement; sums of squares of larger ones overflow."""


def finite(value: object) -> float | None:
    """A value as a number, also where it is written as text; None for what is no number, infinite, or beyond 1e100."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= _LARGEST else None  # NaN is not


@dataclass(frozen=True)
class Row:
    """One row, with where it is."""

    values: Mapping[str, Any]
    file: str
    number: int

    @property
    def place(self) -> str:
        """File and row, for people."""
        return f"{self.file}, row {self.number}"

    def wrong(self, column: str, what: str) -> DataError:
        """The error that names file, row and column."""
        return Problem(self.number, column, what).error(self.file)

    def lacks(self, column: str) -> bool:
        """Whether the column has no value: it is not there, null, or NaN, which tables in memory write for null."""
        value = self.values.get(column)
        return value is None or (isinstance(value, float) and math.isnan(value))

    def text(self, column: str) -> str:
        """A column of text; empty where it has no value.

        Raises:
            DataError: it holds something else than text.
        """
        if self.lacks(column):
            return ""
        value = self.values[column]
        if not isinstance(value, str):
            raise self.wrong(column, f"must be text, not {type(value).__name__}.")
        return value

    def id(self, column: str) -> str:
        """A column that names somebody or something, by text or a whole number; empty where it has no value.

        Raises:
            DataError: it holds something else.
        """
        value = self.values.get(column)
        if (
            isinstance(value, float) and value.is_integer()
        ):  # tables with a null in the column make floats of all others
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(column)

    def number_of(self, column: str) -> float | None:
        """A column that holds a number, which may be written as text; None where it has no value.

        Raises:
            DataError: it holds something else, or a number that is not finite.
        """
        value = self.values.get(column)
        if self.lacks(column) or (isinstance(value, str) and not value.strip()):
            return None
        number = finite(value)
        if number is None:
            raise self.wrong(column, f"must be a number, not {value!r:.40}.")
        return number

    def flag(self, column: str) -> bool | None:
        """A column that says yes or no: a boolean, 0 or 1, or one of these as text; None where it has no value.

        Raises:
            DataError: it holds something else.
        """
        value = self.values.get(column)
        if isinstance(value, bool):
            return value
        if self.lacks(column) or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, int | float) and value in (0, 1):
            return value == 1
        if isinstance(value, str) and value.strip().lower() in _FLAGS:
            return _FLAGS[value.strip().lower()]
        raise self.wrong(column, f"must be true or false, not {value!r:.40}.")

    def inside(self, column: str) -> Row:
        """The object in a column, as a row of its own.

        Raises:
            DataError: it holds something else.
        """
        value = {} if self.lacks(column) else self.values[column]
        if not isinstance(value, Mapping):
            raise self.wrong(column, f"must be an object (name: value), not {type(value).__name__}.")
        return Row(value, self.file, self.number)

    def listed(self, column: str) -> list[Any]:
        """The list in a column; empty where it has no value.

        Raises:
            DataError: it holds something else.
        """
        if self.lacks(column):
            return []
        value = self.values[column]
        if hasattr(value, "tolist"):
            value = value.tolist()
        if not isinstance(value, list):
            raise self.wrong(column, f"must be a list of messages, not {type(value).__name__}.")
        return value

    def about(self, *columns: str) -> dict[str, Any]:
        """Those of these columns that have a value, as JSON holds them.

        Raises:
            DataError: one holds what JSON can't.
        """
        kept = {column: self.values[column] for column in columns if not self.lacks(column)}
        return {column: json_value(value, column, self.file, self.number) for column, value in kept.items()}
