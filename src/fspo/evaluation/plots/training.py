"""Plots of how methods were trained, and on what data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from fspo.evaluation.plots.drawing import (
    ACCENT,
    INK,
    PLAIN,
    WIDTH,
    Palette,
    label_ends,
    new_figure,
    small_multiples,
    svg_of,
)

__all__ = ["heatmap", "histograms", "training_curves"]


def training_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str, ylabel: str, palette: Palette = PLAIN
) -> str:
    """One value over the steps of training, a line for each method."""
    figure, axes = new_figure(2.9)
    ends, said = [], []
    for name, points in curves.items():
        method = name.split(" ")[0]
        colour = palette.colour(method)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, color=colour, linewidth=0.7, alpha=0.35)
        smooth = _smoothed(ys)
        axes.plot(xs, smooth, color=colour, linewidth=1.7)
        if smooth:
            axes.plot([xs[-1]], [smooth[-1]], marker=palette.marker(method), color=colour, markersize=4)
            ends.append((smooth[-1], name, colour))
            said.append(f"{name} from {ys[0]:.3g} to {ys[-1]:.3g} in {len(ys)} records")
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    label_ends(axes, ends)
    return svg_of(figure, title, "; ".join(said))


def heatmap(matrix: Sequence[Sequence[float | None]], labels: Sequence[str], *, title: str) -> str:
    """A square matrix of fractions, darker for more; empty where nothing is known."""
    from matplotlib.patches import Rectangle

    size = len(labels)
    figure, axes = new_figure(min(WIDTH, 1.6 + 0.24 * size), width=min(WIDTH, 2.6 + 0.26 * size))
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            if value is None:
                continue
            share = min(1.0, max(0.0, value))
            axes.add_patch(
                Rectangle((column, row), 0.94, 0.94, facecolor=ACCENT, alpha=0.04 + 0.44 * share, linewidth=0)
            )
            if size <= 16:
                axes.text(
                    column + 0.47, row + 0.49, f"{share * 100:.0f}", ha="center", va="center", color=INK, fontsize=6.5
                )
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    axes.set_aspect("equal")
    middles = [i + 0.47 for i in range(size)]
    axes.set_xticks(middles, labels, rotation=90, fontsize=7)
    axes.set_yticks(middles, labels, fontsize=7)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    known = [value for row, values in enumerate(matrix) for value in values[:row] if value is not None]
    said = f"{size} by {size}, mean off the diagonal {sum(known) / len(known):.0%}" if known else f"{size} by {size}"
    return svg_of(figure, title, said)


def histograms(columns: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str) -> str:
    """Small multiples: for each name the edges of the bins (n + 1) and the counts in them (n)."""
    figure, cells = small_multiples(len(columns), 4, height=1.35)
    for cell, (name, (edges, counts)) in zip(cells, columns.items(), strict=True):
        widths = [right - left for left, right in itertools.pairwise(edges)]
        cell.bar(edges[:-1], counts, width=widths, align="edge", color=ACCENT, alpha=0.75, linewidth=0)
        cell.set_title(name, fontsize=8.5, color=INK, loc="left")
        cell.set_yticks([])
        cell.grid(visible=False)
        cell.spines["left"].set_visible(False)
        cell.tick_params(labelsize=7)
    figure.subplots_adjust(hspace=0.75, wspace=0.15, left=0.02, right=0.98, top=0.92, bottom=0.1)
    return svg_of(figure, title, "distributions of " + ", ".join(columns))


def _smoothed(values: Sequence[float], weight: float = 0.85) -> list[float]:
    """Exponential moving average without the bias of its start."""
    smooth, total, last = [], 0.0, 0.0
    for value in values:
        last = weight * last + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append(last / total)
    return smooth
