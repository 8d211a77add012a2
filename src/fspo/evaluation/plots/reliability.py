"""Is a wide margin surer: accuracy over confidence, a small plot for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fspo.evaluation.artifacts import ReliabilityBin
from fspo.evaluation.plots.drawing import (
    FONT,
    INK,
    MUTED,
    PLAIN,
    RULE,
    Palette,
    percent_formatter,
    small_multiples,
    svg_of,
)

__all__ = ["reliability"]

Bins = Sequence[ReliabilityBin]

_ACROSS = 3
_LARGEST = 60.0
"""Points squared, of the dot of a bin that holds all items."""


def reliability(methods: Mapping[str, tuple[Bins, Bins]], *, title: str, palette: Palette = PLAIN) -> str:
    """Method -> its bins as they are and with fitted scale, each with `confidence`, `accuracy` and `items`.

    Full dots are the margins as they are, rings the fitted ones; the larger a dot, the more items it stands for. On the
    dotted line confidence and accuracy are the same.
    """
    across = min(_ACROSS, len(methods))
    width = 0.5 + 1.9 * across
    figure, cells = small_multiples(len(methods), across, height=2.0, width=width, share=True)
    for place, (cell, (name, (bins, fitted))) in enumerate(zip(cells, methods.items(), strict=True)):
        colour = palette.colour(name)
        cell.plot([0.5, 1], [0.5, 1], color=MUTED, linewidth=0.8, linestyle=":")
        for rows, filled in ((fitted, False), (bins, True)):
            _dots(cell, rows, colour, filled=filled)
        cell.set_title(name, fontsize=FONT, color=INK, loc="left")
        cell.grid(visible=True, color=RULE, linewidth=0.5)
        cell.set_xlim(0.48, 1.02)
        cell.set_ylim(-0.05, 1.05)
        cell.xaxis.set_major_formatter(percent_formatter())
        cell.yaxis.set_major_formatter(percent_formatter())
        cell.set_xticks([0.5, 0.75, 1.0])
        if place % across == 0:
            cell.set_ylabel("right")
        if place >= len(methods) - across:
            cell.set_xlabel("confidence")
            cell.tick_params(labelbottom=True)
    figure.subplots_adjust(hspace=0.42, wspace=0.22)
    return svg_of(figure, title, "; ".join(f"{name}: {_told(bins)}" for name, (bins, _) in methods.items()))


def _dots(cell: Any, rows: Bins, colour: str, *, filled: bool) -> None:
    total = sum(row.items for row in rows) or 1
    sizes = [max(8.0, _LARGEST * row.items / total) for row in rows]
    xs, ys = [row.confidence for row in rows], [row.accuracy for row in rows]
    cell.plot(xs, ys, color=colour, linewidth=1.0 if filled else 0.6, linestyle="-" if filled else (0, (3, 2)))
    cell.scatter(xs, ys, s=sizes, facecolors=colour if filled else "none", edgecolors=colour, linewidths=0.9, zorder=3)


def _told(bins: Bins) -> str:
    return ", ".join(f"{row.accuracy:.0%} right at {row.confidence:.0%} sure ({row.items})" for row in bins)
