"""Numbers in sentences: shares in percent, differences in points, one sign for minus, and no zero below zero."""

from __future__ import annotations

from collections.abc import Sequence

from fspo.evaluation.statistics import Estimate

__all__ = [
    "detectable",
    "join_names",
    "limits",
    "number",
    "percent",
    "percent_with_interval",
    "points",
    "points_with_interval",
]


def number(value: float, decimals: int = 1, *, plus: bool = False) -> str:
    """A number with so many decimals; with `plus`, whatever is above zero has its sign."""
    rounded = round(value, decimals) + 0.0  # -0.0 becomes 0.0
    return f"{rounded:{'+' if plus and rounded else ''}.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float, decimals: int = 1) -> str:
    """A share in percent, as `77.1%`."""
    return f"{number(share * 100, decimals)}%"


def points(difference: float, *, plus: bool = False) -> str:
    """A difference of shares, as `12.0 points`."""
    return f"{number(difference * 100, plus=plus)} points"


def percent_with_interval(estimate: Estimate) -> str:
    """A share with its interval, where it has one, as `77.1% [71.5, 81.9]`."""
    return f"{percent(estimate.value)}{_bracket(estimate)}"


def points_with_interval(estimate: Estimate) -> str:
    """A difference with its interval, as `12.0 points [4.0, 20.0]`."""
    return f"{points(estimate.value)}{_bracket(estimate)}"


def detectable(difference: float | None, percent: bool = True) -> str:
    """The smallest difference that would have been seen, for people; a dash where it can't be told.

    It can't where users are too few, or where the two never differed. No two shares differ by more than 100 points.
    """
    if not difference:
        return "\N{EN DASH}"
    if not percent:
        return f"{difference:.2f}"
    return f"{difference * 100:.1f}" if difference <= 1 else "over 100"


def limits(estimate: Estimate) -> tuple[str, str] | None:
    """The ends of the interval in percent or points, the lower first; None where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return None
    return number(estimate.low * 100), number(estimate.high * 100)


def join_names(names: Sequence[str]) -> str:
    """Names as people list them: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _bracket(estimate: Estimate) -> str:
    ends = limits(estimate)
    return f" [{ends[0]}, {ends[1]}]" if ends else ""
