"""The report's section on the data: what the checks of the synthesis found, whatever of them is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fspo.evaluation import plots
from fspo.files import read_json

__all__ = ["data_section"]

_MOST_BINS = 24
_MOST_USERS = 30
_MOST_SAMPLES = 4
_FIGURES = (
    ("works", "counts", "works", "{:,}"),
    ("questions", "counts", "questions", "{:,}"),
    ("responses", "counts", "responses", "{:,}"),
    ("users", "counts", "users", "{:,}"),
    ("labelled pairs", "counts", "preferences", "{:,}"),
    ("texts sampled", "samples", "asked", "{:,}"),
    ("of these used", "samples", "used", "{:,}"),
    ("words a response, mean", "balance", "words", "{:.1f}"),
    ("responses of praise", "balance", "positive_share", "{:.1%}"),
    ("labels that hold in the other order", "labels", "consistency", "{:.1%}"),
    ("ties among all verdicts", "labels", "tie_share", "{:.1%}"),
    ("pairs made from one sampled text", "labels", "same_text_share", "{:.1%}"),
    ("attributes that differ within a pair", "labels", "styles_differing", "{:.1%}"),
    ("near-duplicate responses", "near_duplicates", "share", "{:.1%}"),
    ("responses that occur word for word elsewhere", "near_duplicates", "verbatim_share", "{:.1%}"),
    ("largest correlation of two attributes", "correlation", "largest", "{:.2f}"),
)


def data_section(run_dir: Path) -> dict[str, Any]:
    """Plots, figures and samples from `data/checks.json` (see `fspo.synthesis.checks`); empty where there is none."""
    path = run_dir / "data" / "checks.json"
    checks = read_json(path) if path.exists() else {}
    if not isinstance(checks, dict) or not checks:
        return {}
    users = len(_part(checks, "disagreement").get("users", []))
    return {
        "distributions": _distributions(checks.get("attributes")),
        "disagreement": _disagreement(checks.get("disagreement")),
        "shown_users": min(users, _MOST_USERS),
        "users": users,
        "figures": _figures(checks),
        "pairs": _records(checks, "example_pairs"),
        "examples": _records(checks, "examples"),
    }


def _distributions(attributes: object) -> Markup | None:
    """Histograms; of an attribute with values but no bins they are counted here."""
    if not isinstance(attributes, dict):
        return None
    columns = {name: bins for name, record in attributes.items() if (bins := _bins(record))}
    return Markup(plots.histograms(columns, title="Attributes of the responses")) if columns else None


def _bins(record: object) -> tuple[Sequence[float], Sequence[float]] | None:
    if isinstance(record, dict):
        histogram = record.get("histogram", record)
        edges, counts = histogram.get("edges") or histogram.get("bins"), histogram.get("counts")
        if edges and counts and len(edges) == len(counts) + 1:
            return edges, counts
        record = record.get("values")
    if not isinstance(record, list) or not record:
        return None
    return _counted([float(value) for value in record])


def _counted(values: Sequence[float]) -> tuple[list[float], list[float]]:
    low, high = min(values), max(values)
    width = (high - low) / _MOST_BINS or 1.0
    counts = [0.0] * _MOST_BINS
    for value in values:
        counts[min(_MOST_BINS - 1, int((value - low) / width))] += 1
    return [low + width * i for i in range(_MOST_BINS + 1)], counts


def _disagreement(record: object) -> Markup | None:
    if not isinstance(record, dict):
        return None
    users, matrix = record.get("users"), record.get("matrix")
    if not users or not matrix:
        return None
    shown = [row[:_MOST_USERS] for row in matrix[:_MOST_USERS]]
    return Markup(plots.heatmap(shown, users[:_MOST_USERS], title="How often two users disagree on a pair"))


def _figures(checks: Mapping[str, Any]) -> dict[str, str]:
    """The figures that are there, in words."""
    found: dict[str, str] = {}
    for label, section, name, form in _FIGURES:
        value = _part(checks, section).get(name)
        if isinstance(value, int | float):
            found[label] = form.format(value)
    matrix = _part(checks, "disagreement").get("matrix") or []
    apart = [value for row, values in enumerate(matrix) for value in values[:row]]
    if apart:
        found["disagreement of two users, mean"] = f"{sum(apart) / len(apart):.1%}"
    per_user = _part(checks, "labels").get("per_user")
    if isinstance(per_user, dict):
        found["labels a user, least to most"] = f"{per_user.get('least')} to {per_user.get('most')}"
    for reason, count in _part(_part(checks, "samples"), "rejected").items():
        found[f"samples put aside: {reason.replace('_', ' ')}"] = f"{count:,}"
    return found


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _records(checks: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = checks.get(name)
    return [record for record in value if isinstance(record, dict)][:_MOST_SAMPLES] if isinstance(value, list) else []
