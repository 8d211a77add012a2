"""The report's section on the data: what the checks of the synthesis found, whatever of them is there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fspo.evaluation.plots import charts
from fspo.evaluation.report.plot_entry import PlotEntry
from fspo.files import read_json

__all__ = ["data_section"]

_MOST_USERS = 30


def data_section(run_dir: Path) -> dict[str, Any]:
    """The contents of, and plots from `data/checks.json`; empty where there is none.

    See `fspo.synthesis.checks`.
    """
    path = run_dir / "data" / "checks.json"
    checks = read_json(path) if path.exists() else {}
    if not isinstance(checks, dict) or not checks:
        return {}
    shown = min(len(_part(checks, "disagreement").get("users", [])), _MOST_USERS)
    return {
        "checks": checks,
        "distributions": _distributions(checks.get("attributes")),
        "disagreement": _disagreement(checks.get("disagreement")),
        "shown_users": shown,
    }


def _distributions(attributes: object) -> PlotEntry | None:
    """A histogram of each attribute."""
    if not isinstance(attributes, dict):
        return None
    columns = {name: bins for name, record in attributes.items() if (bins := _bins(record))}
    if not columns:
        return None
    title = "Attributes of the responses"
    numbers = [
        {"attribute": name, "from": left, "to": right, "responses": count}
        for name, (edges, counts) in columns.items()
        for left, right, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return PlotEntry("attributes", title, charts.histograms(columns, title=title), numbers)


def _bins(record: object) -> tuple[Sequence[float], Sequence[float]] | None:
    if not isinstance(record, dict):
        return None
    histogram = _part(record, "histogram")
    edges, counts = histogram.get("edges"), histogram.get("counts")
    return (edges, counts) if edges and counts and len(edges) == len(counts) + 1 else None


def _disagreement(record: object) -> PlotEntry | None:
    if not isinstance(record, dict):
        return None
    users, matrix = record.get("users"), record.get("matrix")
    if not users or not matrix:
        return None
    shown = [row[:_MOST_USERS] for row in matrix[:_MOST_USERS]]
    title = "How often two users disagree on a pair"
    numbers = [
        {"user": users[row], "other": users[column], "disagree": matrix[row][column]}
        for row, column in itertools.combinations(range(min(len(users), len(matrix))), 2)
    ]
    return PlotEntry("disagreement", title, charts.heatmap(shown, users[:_MOST_USERS], title=title), numbers)


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}
