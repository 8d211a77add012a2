"""How the pages are made from their templates, and how numbers stand on them."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fspo.evaluation.report.formatting import detectable, limits, number
from fspo.evaluation.report.metric_sections import IN_UNITS
from fspo.evaluation.statistics import Estimate

__all__ = ["environment"]


def environment() -> Environment:
    """What pages are made with: everything is text unless it says otherwise, and a name that is missing is an error."""
    found = Environment(
        loader=PackageLoader("fspo.evaluation.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": _percent,
        "interval": _interval,
        "number": lambda value: number(value, 2),
        "share": lambda value: number(value * 100),
        "amount": _amount,
        "chance": _chance,
        "detectable": detectable,
        "points": _points,
        "in_units": lambda measure: measure.partition("/")[0] in IN_UNITS,
        "cell": _cell,
    }
    return found


def _percent(estimate: Estimate | None) -> str:
    return "\N{EN DASH}" if estimate is None else number(estimate.value * 100)


def _interval(estimate: Estimate | None, percent: bool = True) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    if not percent:
        return f"{number(estimate.low, 2)} to {number(estimate.high, 2)}"
    ends = limits(estimate)
    return f"{ends[0]} to {ends[1]}" if ends else ""


def _points(estimate: Estimate) -> str:
    """A difference in points with its sign."""
    return number(estimate.value * 100, plus=True)


def _chance(p: float | None) -> str:
    """A p value, not more exact than it is."""
    if p is None:
        return "\N{EN DASH}"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _amount(count: int | None) -> str:
    return "\N{EN DASH}" if count is None else f"{count:,}"


def _cell(value: Any) -> str:
    """A number of a plot's table as people read it; the CSV has all digits."""
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")
    return "" if value is None else str(value)
