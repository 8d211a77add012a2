"""Small statistics of a dataset's checks: histograms, correlations, shares."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

__all__ = ["correlation", "histogram", "share"]

_BINS = 12


def histogram(figures: Sequence[float], bins: int = _BINS) -> dict[str, list[float]]:
    """Counts in bins of equal width; figures of few distinct values get a bin each."""
    distinct = sorted(set(figures))
    if len(distinct) <= bins // 2:
        width = min((b - a for a, b in pairwise(distinct)), default=1.0)
        edges = [distinct[0] - width / 2, *((a + b) / 2 for a, b in pairwise(distinct))]
        edges.append(distinct[-1] + width / 2)
    else:
        low, high = distinct[0], distinct[-1]
        edges = [low + (high - low) * place / bins for place in range(bins + 1)]
    counts = [0.0] * (len(edges) - 1)
    for figure in figures:
        place = next((i for i, edge in enumerate(edges[1:-1]) if figure < edge), len(counts) - 1)
        counts[place] += 1
    return {"edges": [round(edge, 4) for edge in edges], "counts": counts}


def correlation(columns: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Pearson's r between every two attributes."""
    names = list(columns)
    matrix = [[1.0 if a == b else round(_pearson(columns[a], columns[b]), 4) for b in names] for a in names]
    off = [abs(matrix[i][j]) for i, j in combinations(range(len(names)), 2)]
    return {"attributes": names, "matrix": matrix, "largest": max(off, default=0.0)}


def share(flags: Iterable[object]) -> float:
    """How many of the flags are set, 0 to 1; 0 where there is none."""
    flags = list(flags)
    return round(sum(map(bool, flags)) / len(flags), 4) if flags else 0.0


def _pearson(x: Sequence[float], y: Sequence[float]) -> float:
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0
    value = statistics.correlation(x, y)
    return 0.0 if math.isnan(value) else value
