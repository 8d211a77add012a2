"""The report's section on the data: what the checks of the synthesis found, whatever of them is there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fspo.evaluation.plots import charts
from fspo.evaluation.report.plot_entry import PlotEntry

__all__ = ["data_section"]

_MOST_USERS = 30


def data_section(checks: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of `data/checks.json` (docs/data.md) and plots of them; empty where there are none."""
    if not checks:
        return {}
    disagreement = checks.get("disagreement") or {}
    users, matrix = disagreement.get("users", []), disagreement.get("matrix", [])
    return {
        "checks": checks,
        "distributions": _distributions(checks.get("attributes") or {}),
        "disagreement": _disagreement(users, matrix) if users and matrix else None,
        "shown_users": min(len(users), _MOST_USERS),
    }


def _distributions(attributes: Mapping[str, Mapping[str, Any]]) -> PlotEntry | None:
    """A histogram of each attribute."""
    columns: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        name: (row["histogram"]["edges"], row["histogram"]["counts"])
        for name, row in attributes.items()
        if row.get("histogram", {}).get("counts")
    }
    if not columns:
        return None
    title = "Attributes of the responses"
    numbers = [
        {"attribute": name, "from": left, "to": right, "responses": count}
        for name, (edges, counts) in columns.items()
        for left, right, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return PlotEntry("attributes", title, partial(charts.histograms, columns), numbers)


def _disagreement(users: Sequence[str], matrix: Sequence[Sequence[float | None]]) -> PlotEntry:
    shown = [row[:_MOST_USERS] for row in matrix[:_MOST_USERS]]
    title = "How often two users disagree on a pair"
    numbers = [
        {"user": users[row], "other": users[column], "disagree": matrix[row][column]}
        for row, column in itertools.combinations(range(min(len(users), len(matrix))), 2)
    ]
    return PlotEntry("disagreement", title, partial(charts.heatmap, shown, users[:_MOST_USERS]), numbers)
