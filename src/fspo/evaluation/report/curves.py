"""How the methods were trained: one plot for each value that they recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fspo.evaluation import plots
from fspo.evaluation.report.plot_entry import PlotEntry
from fspo.files import read_jsonl

__all__ = ["training_plots"]

_CURVES = (
    ("loss", "training loss"),
    ("margin_accuracy", "share of training queries ranked right"),
    ("direction_accuracy", "share of training queries moved the right way by the labels"),
    ("eval_margin_accuracy", "share of validation queries ranked right (by the training's own margin)"),
    ("eval_direction_accuracy", "share of validation queries moved the right way by the labels"),
)


def training_plots(run_dir: Path, palette: plots.Palette) -> list[PlotEntry]:
    """One plot for each value that methods recorded while training."""
    records = {path.parent.name: read_jsonl(path) for path in sorted(run_dir.glob("methods/*/metrics.jsonl"))}
    found = []
    for key, label in _CURVES:
        curves = {name: _series(rows, key) for name, rows in records.items()}
        curves = {name: points for name, points in curves.items() if len(points) > 1}
        if curves:
            svg = plots.training_curves(curves, title=label, ylabel=label, palette=palette)
            numbers = [{"method": name, "step": x, "value": y} for name, points in curves.items() for x, y in points]
            found.append(
                PlotEntry(f"training-{key.replace('_', '-')}", label, svg, numbers, "as recorded at each step")
            )
    return found


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    latest = {row["step"]: row[key] for row in rows if _is_number(row.get("step")) and _is_number(row.get(key))}
    return sorted(latest.items())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
