"""Small statistics of a dataset's checks: histograms, correlations, shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["correlation", "histogram", "share"]

_BINS = 12


def histogram(figures: Sequence[float], bins: int = _BINS) -> dict[str, list[float]]:
    """Counts in bins of equal width; figures of few distinct values get a bin each."""
    distinct = np.unique(np.asarray(figures, dtype=float))
    edges = np.linspace(distinct[0], distinct[-1], bins + 1)
    if len(distinct) <= bins // 2:
        width = np.diff(distinct).min() if len(distinct) > 1 else 1.0
        between = (distinct[1:] + distinct[:-1]) / 2
        edges = np.array([distinct[0] - width / 2, *between, distinct[-1] + width / 2])
    counts, _ = np.histogram(figures, edges)
    return {"edges": edges.round(4).tolist(), "counts": counts.astype(float).tolist()}


def correlation(columns: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Pearson's r between every two attributes; 0 with one that does not vary."""
    names = list(columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.atleast_2d(np.corrcoef([columns[name] for name in names]))
    matrix = np.nan_to_num(matrix).round(4)
    np.fill_diagonal(matrix, 1.0)
    off = np.abs(matrix[~np.eye(len(names), dtype=bool)])
    return {"attributes": names, "matrix": matrix.tolist(), "largest": float(off.max(initial=0.0))}


def share(flags: Iterable[object]) -> float:
    """How many of the flags are set, 0 to 1; 0 where there is none."""
    flags = list(flags)
    return round(sum(map(bool, flags)) / len(flags), 4) if flags else 0.0
