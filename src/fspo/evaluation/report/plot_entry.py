"""A plot of the page together with its numbers: as a table to be read out, and as CSV to be taken away."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fspo.evaluation.statistics.intervals import Estimate

__all__ = ["PlotEntry", "estimate_rows"]

Row = Mapping[str, Any]
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class PlotEntry:
    """One plot and the numbers that it was drawn from."""

    name: str
    """Of its files, and its place on the page."""
    title: str
    draw: Callable[..., str] | None
    """Draws it as SVG from a `title` and whether it is `narrow`, for a phone; None where numbers stand alone."""
    rows: Sequence[Row] = field(default_factory=tuple)
    note: str = "shares as fractions of 1"
    """What a reader of the numbers has to know besides: their units, and what is not drawn."""

    @property
    def svg(self) -> str:
        """The drawing for wide screens, for paper and for files."""
        return self.draw(title=self.title, narrow=False) if self.draw else ""

    @property
    def narrow(self) -> str:
        """The drawing for a phone."""
        return self.draw(title=self.title, narrow=True) if self.draw else ""

    @property
    def columns(self) -> list[str]:
        """The keys of the rows."""
        return list(dict.fromkeys(key for row in self.rows for key in row))

    @property
    def csv(self) -> str:
        """The rows as comma-separated values, as many digits as were computed; names can't become formulas."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_safe(row.get(column)) for column in self.columns] for row in self.rows)
        return out.getvalue()

    @property
    def href(self) -> str:
        """The CSV within the page, as the target of a link."""
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(self.csv.encode()).decode()


def estimate_rows(found: Iterable[tuple[Mapping[str, Any], Estimate]]) -> list[dict[str, Any]]:
    """Rows of estimates: what each is of, then value, low, high, users and items."""
    return [dict(about) | estimate.to_json() for about, estimate in found]


def _safe(value: object) -> object:
    """Text that a spreadsheet would take for a formula is quoted; user ids are anybody's."""
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return "'" + value
    return "" if value is None else value
