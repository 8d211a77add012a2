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


def data_section(run_dir: Path) -> dict[str, Any]:
    """Plots, figures and samples from `data/checks.json`; empty where there is none."""
    path = run_dir / "data" / "checks.json"
    checks = read_json(path) if path.exists() else {}
    if not isinstance(checks, dict):
        return {}
    section: dict[str, Any] = {
        "distributions": _distributions(checks.get("attributes")),
        "disagreement": _disagreement(checks.get("disagreement")),
        "figures": {_words(name): value for name, value in _figures(checks)},
        "samples": [sample for sample in checks.get("samples", []) if isinstance(sample, dict)][:6],
    }
    return section if any(section.values()) else {}


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
    return Markup(plots.heatmap(matrix, users, title="How often two users disagree on a pair"))


def _figures(checks: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every number among the checks, outside of matrices and distributions."""
    found: list[tuple[str, str]] = []
    for name, value in checks.items():
        label = f"{prefix}{name}"
        if isinstance(value, bool) or name in ("attributes", "samples", "matrix", "users", "scales"):
            continue
        if isinstance(value, int):
            found.append((label, f"{value:,}"))
        elif isinstance(value, float):
            found.append((label, f"{value:.3f}"))
        elif isinstance(value, dict) and not prefix:
            found += _figures(value, f"{name}: ")
    return found


def _words(name: str) -> str:
    return name.replace("_", " ")
