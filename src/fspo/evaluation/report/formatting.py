"""How numbers and pages are written: shares in percent, differences in points, one minus sign, no zero below zero."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fspo.evaluation.statistics.intervals import Estimate

__all__ = [
    "IN_UNITS",
    "OPPONENT",
    "Unit",
    "amount",
    "chance",
    "detectable",
    "environment",
    "join_names",
    "number",
    "with_interval",
]

IN_UNITS = frozenset(
    {
        *("answer_utility", "answer_regret", "regret", "general_fluency", "tax_fluency"),
        *("alignment_slope", "alignment_slope_normalised", "alignment_fit"),
    }
)
"""Measures in units of the users' utility, in nats or in levels, which are no shares."""

OPPONENT = "the base model"
"""Whose answers the methods' answers are judged against, unless an evaluation names another."""

Unit = Literal["%", " points", " nats"]
"""What stands behind a number. Shares are in percent and their differences in points; nats stay as they are."""

_DASH = "\N{EN DASH}"


def number(value: float, decimals: int = 1, *, plus: bool = False) -> str:
    """A number with so many decimals; with `plus`, whatever is above zero has its sign."""
    rounded = round(value, decimals) + 0.0  # -0.0 becomes 0.0
    return f"{rounded:{'+' if plus and rounded else ''}.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def amount(value: float, unit: Unit = "%", decimals: int | None = None) -> str:
    """A share or a difference with its unit, as `77.1%`, `12.0 points` or `0.20 nats`."""
    return f"{_bare(value, unit, decimals)}{unit}"


def with_interval(estimate: Estimate, unit: Unit = "%") -> str:
    """An estimate with its interval, where it has one, as `77.1% [71.5, 81.9]`."""
    said = amount(estimate.value, unit)
    if estimate.low is None or estimate.high is None:
        return said
    return f"{said} [{_bare(estimate.low, unit)}, {_bare(estimate.high, unit)}]"


def detectable(difference: float | None, percent: bool = True) -> str:
    """The smallest difference that would have been seen, for people; a dash where it can't be told.

    No two shares differ by more than 100 points.
    """
    if difference is None:
        return _DASH
    if not percent:
        return f"{difference:.2f}"
    return f"{difference * 100:.1f}" if difference <= 1 else "over 100"


def join_names(names: Sequence[str]) -> str:
    """Names as people list them: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@cache
def environment(*packages: str) -> Environment:
    """What pages are made with: everything is text unless it says otherwise, and a name that is missing is an error.

    `packages` have templates of their own, which may include those of the report. All pages share the environment, so
    that templates are compiled once; don't change it.
    """
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "fspo.evaluation.report")]),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": lambda estimate: _DASH if estimate is None else number(estimate.value * 100),
        "interval": _interval,
        "with_interval": with_interval,
        "number": lambda value: number(value, 2),
        "share": lambda value: number(value * 100),
        "amount": lambda count: _DASH if count is None else f"{count:,}",
        "chance": chance,
        "detectable": detectable,
        "points": lambda estimate: number(estimate.value * 100, plus=True),
        "in_units": lambda measure: measure.partition("/")[0] in IN_UNITS,
        "names": join_names,
        "present": lambda labels, metrics: {m: labels[m] for m in labels if any(m in row for row in metrics.values())},
        "cell": _cell,
        "labelled": _labelled,
        "code": _code,
        "opening": _opening,
    }
    found.filters |= filters
    return found


def _bare(value: float, unit: Unit, decimals: int | None = None) -> str:
    scale, usual = (1, 2) if unit == " nats" else (100, 1)
    return number(value * scale, usual if decimals is None else decimals)


def _interval(estimate: Estimate | None, percent: bool = True) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    unit: Unit = "%" if percent else " nats"
    return f"{_bare(estimate.low, unit)} to {_bare(estimate.high, unit)}"


def chance(p: float | None) -> str:
    """A p value, not more exact than it is."""
    if p is None:
        return _DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cell(value: Any) -> str:
    """A number of a plot's table as people read it; the CSV has all digits."""
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    return "" if value is None else str(value)


def _labelled(table: Markup) -> Markup:
    """A table whose cells repeat the title of their column in `data-label`, for screens too narrow for columns."""
    head, end, body = str(table).partition("</thead>")
    titles = [escape(Markup(title).striptags()) for title in re.findall(r"<th\b[^>]*>(.*?)</th>", head, re.DOTALL)]

    def label_cells(row: re.Match[str]) -> str:
        title = iter(titles)
        return re.sub(r"<t[dh]\b", lambda cell: f'{cell[0]} data-label="{next(title, "")}"', row[0])

    return Markup(head + end + re.sub(r"<tr\b.*?</tr>", label_cells, body, flags=re.DOTALL))


def _code(text: str) -> Markup:
    """A text whose parts between backticks are code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _opening(text: str, most: int) -> tuple[str, str]:
    """A text as what is shown of it, about `most` characters of whole words, and the rest, which is unfolded."""
    cut = text.rfind(" ", 0, most)
    return (text[:cut], text[cut:]) if len(text) > 1.3 * most and cut > 0 else (text, "")
