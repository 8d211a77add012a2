"""The report's section on the data: what the checks of the synthesis found, whatever of them is there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fspo.evaluation import plots
from fspo.evaluation.report.formatting import amount
from fspo.evaluation.report.plot_entry import PlotEntry
from fspo.files import read_json

__all__ = ["data_section"]

_MOST_USERS = 30
_MOST_SAMPLES = 4
_FIGURES = (
    ("works", "counts", "works", "{:,}"),
    ("questions", "counts", "questions", "{:,}"),
    ("responses", "counts", "responses", "{:,}"),
    ("users", "counts", "users", "{:,}"),
    ("labelled pairs", "counts", "preferences", "{:,}"),
    ("texts sampled", "sampling", "asked", "{:,}"),
    ("of these used", "sampling", "used", "{:,}"),
    ("words a response, mean", "balance", "words", "{:.1f}"),
    ("responses of praise", "balance", "positive_share", "{:.1%}"),
    ("labels that hold in the other order", "labels", "consistency", "{:.1%}"),
    ("disagreement of two users, mean", "disagreement", "mean", "{:.1%}"),
    ("ties among all verdicts", "labels", "tie_share", "{:.1%}"),
    ("pairs made from one sampled text", "labels", "same_text_share", "{:.1%}"),
    ("attributes that differ within a pair", "labels", "styles_differing", "{:.1%}"),
    ("near-duplicate responses", "near_duplicates", "share", "{:.1%}"),
    ("word triples that two responses share, mean", "near_duplicates", "mean_overlap", "{:.1%}"),
    ("responses that occur word for word elsewhere", "near_duplicates", "verbatim_share", "{:.1%}"),
    ("largest correlation of two attributes", "correlation", "largest", "{:.2f}"),
)


def data_section(run_dir: Path) -> dict[str, Any]:
    """Plots, figures and samples from `data/checks.json`; empty where there is none.

    See `fspo.synthesis.checks`.
    """
    path = run_dir / "data" / "checks.json"
    checks = read_json(path) if path.exists() else {}
    if not isinstance(checks, dict) or not checks:
        return {}
    shown = min(len(_part(checks, "disagreement").get("users", [])), _MOST_USERS)
    return {
        "distributions": _distributions(checks.get("attributes")),
        "disagreement": _disagreement(checks.get("disagreement")),
        "shown_users": shown,
        "users": _part(checks, "counts").get("users", shown),
        "figures": _figures(checks),
        "pairs": _records(checks, "sample_pairs"),
        "examples": _records(checks, "samples"),
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
    return PlotEntry("attributes", title, plots.histograms(columns, title=title), numbers)


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
    return PlotEntry("disagreement", title, plots.heatmap(shown, users[:_MOST_USERS], title=title), numbers)


def _figures(checks: Mapping[str, Any]) -> dict[str, str]:
    """The figures that are there, in words."""
    found: dict[str, str] = {}
    for label, section, name, form in _FIGURES:
        value = _part(checks, section).get(name)
        if isinstance(value, int | float):
            found[label] = form.format(value)
    steering = _part(_part(checks, "sampling"), "steering")
    if asked := sum(sum(row.values()) for row in steering.values()):
        as_steered = sum(row.get(wanted, 0) for wanted, row in steering.items())
        found["texts whose sentiment came out as steered"] = amount(as_steered / asked)
    per_user = _part(checks, "labels").get("per_user")
    if isinstance(per_user, dict):
        found["labels a user, least to most"] = f"{per_user.get('least')} to {per_user.get('most')}"
    for reason, count in _part(_part(checks, "sampling"), "rejected").items():
        found[f"samples put aside: {reason.replace('_', ' ')}"] = f"{count:,}"
    return found


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _records(checks: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = checks.get(name)
    return [record for record in value if isinstance(record, dict)][:_MOST_SAMPLES] if isinstance(value, list) else []
