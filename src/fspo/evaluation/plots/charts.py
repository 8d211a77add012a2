"""The plots of the report: methods side by side, how they were trained, and on what data."""

from __future__ import annotations

import itertools
import statistics
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fspo.evaluation.artifacts import ReliabilityBin
from fspo.evaluation.plots.drawing import (
    ACCENT,
    BESIDE,
    DOTTED,
    FONT,
    INK,
    NARROW,
    OBSERVER,
    PLAIN,
    RULE,
    WIDTH,
    Palette,
    label_ends,
    new_figure,
    percent_axis,
    percent_formatter,
    reach,
    said,
    small_multiples,
    svg_of,
)
from fspo.evaluation.statistics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Panel",
    "Points",
    "accuracy_by_shots",
    "heatmap",
    "histograms",
    "interval_plot",
    "levels_by_turn",
    "panels",
    "reliability",
    "training_curves",
    "user_dots",
]

Points = Sequence[tuple[float, Estimate]]
Bins = Sequence[ReliabilityBin]

_ACROSS = 3
_LARGEST = 60.0
"""Points squared, of the dot of a bin that holds all items."""


@dataclass(frozen=True)
class Panel:
    """One measure of several methods."""

    title: str
    rows: Mapping[str, Estimate]
    """Method -> estimate; a method that is left out has an empty row."""
    chance: float | None = None
    """Where a dotted line stands."""
    percent: bool = True


def accuracy_by_shots(
    methods: Mapping[str, Points], observer: Points, *, title: str, palette: Palette = PLAIN, narrow: bool = False
) -> str:
    """Reward accuracy over the number of shots, with intervals, beside the ideal observer's where there is one."""
    figure, axes = new_figure(3.4, width=NARROW if narrow else WIDTH)
    ends = _lines(axes, methods, palette)
    if observer:
        axes.plot(
            [k for k, _ in observer], [e.value for _, e in observer], color=INK, linestyle=(0, (4, 3)), linewidth=1.2
        )
        ends.append((observer[-1][1].value, OBSERVER, INK))
    axes.axhline(0.5, **DOTTED)
    _label_axes(axes, (*methods.values(), observer), "shots in context", "reward accuracy")
    percent_axis(axes)
    label_ends(axes, ends)
    return svg_of(figure, title, _describe_points(methods, observer), narrow=narrow)


def levels_by_turn(methods: Mapping[str, Points], *, title: str, palette: Palette = PLAIN, narrow: bool = False) -> str:
    """Alignment levels from 1 to 5 over the turns of a conversation, with intervals."""
    figure, axes = new_figure(3.4, width=NARROW if narrow else WIDTH)
    ends = _lines(axes, methods, palette)
    _label_axes(axes, methods.values(), "turn", "alignment level")
    label_ends(axes, ends)
    told = (f"{name}: " + ", ".join(f"{e.value:.2f} at {k:g}" for k, e in points) for name, points in methods.items())
    return svg_of(figure, title, "; ".join(told), narrow=narrow)


def _label_axes(axes: Axes, lines: Iterable[Points], across: str, up: str) -> None:
    ticks = sorted({k for points in lines for k, _ in points})
    axes.set_xticks(ticks, [f"{k:g}" for k in ticks])
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _lines(axes: Axes, methods: Mapping[str, Points], palette: Palette) -> list[tuple[float, str, str]]:
    """Draw a line with intervals for each method; returns where each ends, its name and its colour."""
    ends = []
    count = len(methods)
    for place, (name, points) in enumerate(methods.items()):
        colour = palette.colour(name)
        shift = 0.05 * (place - (count - 1) / 2)
        axes.errorbar(
            [k + shift for k, _ in points],
            [e.value for _, e in points],
            yerr=reach([e for _, e in points]),
            color=colour,
            marker=palette.marker(name),
            markersize=4.5,
            linewidth=2.2 if name == "fspo" else 1.3,
            elinewidth=0.8,
            capsize=0,
        )
        ends.append((points[-1][1].value, name, colour))
    return ends


def interval_plot(
    rows: Sequence[tuple[str, str, Estimate]],
    *,
    title: str,
    chance: float | None = 0.5,
    percent: bool = True,
    palette: Palette = PLAIN,
    narrow: bool = False,
) -> str:
    """Estimates with their intervals, one line each: (label, method, estimate)."""
    figure, axes = new_figure(0.6 + 0.28 * len(rows), width=NARROW if narrow else 5.0)
    places = list(range(len(rows)))[::-1]
    form = "{:.1%}" if percent else "{:.2f}"
    for place, (_, method, estimate) in zip(places, rows, strict=True):
        _interval(axes, place, method, estimate, palette)
        axes.annotate(form.format(estimate.value), (1.02, place), color=INK, annotation_clip=False, **BESIDE)
    axes.set_yticks(places, [label for label, _, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    least = (0.25, 0.75) if chance == 0.5 else None
    _sideways(axes, [estimate for *_, estimate in rows], chance, percent=percent, least=least)
    told = "; ".join(f"{label}: {said(e, percent=percent)}" for label, _, e in rows)
    return svg_of(figure, title, told, narrow=narrow)


def panels(shown: Sequence[Panel], *, title: str, palette: Palette = PLAIN, narrow: bool = False) -> str:
    """Small plots of one measure each, the same methods in the same rows."""
    methods = list(dict.fromkeys(name for panel in shown for name in panel.rows))
    across = 1 if narrow else min(_ACROSS, len(shown))
    width, height = NARROW if narrow else 1.2 + 1.75 * across, 0.55 + 0.24 * len(methods)
    figure, cells = small_multiples(len(shown), across, height=height, width=width)
    places = {name: len(methods) - 1 - number for number, name in enumerate(methods)}
    for number, (cell, panel) in enumerate(zip(cells, shown, strict=True)):
        for name, estimate in panel.rows.items():
            _interval(cell, places[name], name, estimate, palette, size=4.5)
        cell.set_title(panel.title, fontsize=FONT, color=INK, loc="left")
        cell.set_yticks(list(places.values()), list(places) if number % across == 0 else [""] * len(places))
        cell.set_ylim(-0.6, len(methods) - 0.4)
        _sideways(cell, list(panel.rows.values()), panel.chance, percent=panel.percent)
    figure.subplots_adjust(hspace=0.62, wspace=0.14)
    told = (
        f"{panel.title}: " + ", ".join(f"{name} {said(e, percent=panel.percent)}" for name, e in panel.rows.items())
        for panel in shown
    )
    return svg_of(figure, title, "; ".join(told), narrow=narrow)


def user_dots(
    methods: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    xlabel: str,
    palette: Palette = PLAIN,
    narrow: bool = False,
) -> str:
    """A dot for every user of every method (method -> user -> share), with a line at the middle one."""
    figure, axes = new_figure(0.6 + 0.5 * len(methods), width=NARROW if narrow else 5.6)
    places = list(range(len(methods)))[::-1]
    told = []
    for place, (name, users) in zip(places, methods.items(), strict=True):
        colour = palette.colour(name)
        xs, ys = _stacked(list(users.values()))
        axes.scatter(
            xs, [place + y for y in ys], s=17, color=colour, linewidths=0, marker=palette.marker(name), zorder=3
        )
        middle = statistics.median(users.values())
        axes.plot([middle, middle], [place - 0.44, place + 0.44], color=INK, linewidth=1.2, zorder=2)
        told.append(
            f"{name}: {len(users)} users from {min(users.values()):.0%} to {max(users.values()):.0%}, "
            f"half of them at {middle:.0%} or more"
        )
    axes.axvline(0.5, **DOTTED)
    axes.set_yticks(places, list(methods))
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel(xlabel)
    _grid_sideways(axes)
    axes.xaxis.set_major_formatter(percent_formatter())
    return svg_of(figure, title, "; ".join(told), narrow=narrow)


def _interval(axes: Axes, place: int, method: str, estimate: Estimate, palette: Palette, *, size: float = 6.0) -> None:
    colour = palette.colour(method)
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=2.0, solid_capstyle="round")
    axes.plot([estimate.value], [place], marker=palette.marker(method), color=colour, markersize=size)


def _sideways(
    axes: Axes,
    estimates: Sequence[Estimate],
    chance: float | None,
    *,
    percent: bool,
    least: tuple[float, float] | None = None,
) -> None:
    """A level axis that all intervals and the line of chance fit on, and `least` in percent."""
    ends = [end for e in estimates for end in (e.low, e.value, e.high) if end is not None]
    ends += [chance] if chance is not None else []
    ends += least if least is not None and percent else []
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = 0.06 * (high - low) or 0.05
    axes.set_xlim(low - room, high + room)
    if chance is not None:
        axes.axvline(chance, **DOTTED)
    axes.locator_params(axis="x", nbins=4)
    _grid_sideways(axes)
    if percent:
        axes.xaxis.set_major_formatter(percent_formatter())


def _grid_sideways(axes: Axes) -> None:
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=RULE, linewidth=0.6)
    axes.spines["left"].set_visible(False)


def _stacked(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Dots of the same value one above the other, around the middle of their row, never out of it."""
    groups: dict[float, list[float]] = defaultdict(list)
    for value in sorted(values):
        groups[round(value * 50)].append(value)
    most = max(map(len, groups.values()), default=1)
    step = min(0.13, 0.72 / max(1, most - 1))
    xs, ys = [], []
    for group in groups.values():
        xs += group
        ys += [step * (number - (len(group) - 1) / 2) for number in range(len(group))]
    return xs, ys


def _describe_points(methods: Mapping[str, Points], observer: Points) -> str:
    lines = dict(methods) | ({OBSERVER: observer} if observer else {})
    return "; ".join(
        f"{name}: " + ", ".join(f"{e.value:.0%} at {k:g}" for k, e in points) for name, points in lines.items()
    )


def reliability(
    methods: Mapping[str, tuple[Bins, Bins]], *, title: str, palette: Palette = PLAIN, narrow: bool = False
) -> str:
    """Method -> its bins as they are and with fitted scale, each with `confidence`, `accuracy` and `items`.

    Full dots are the margins as they are, rings the fitted ones; the larger a dot, the more items it stands for. On the
    dotted line confidence and accuracy are the same.
    """
    across = min(2 if narrow else _ACROSS, len(methods))
    width = 0.5 + (1.4 if narrow else 1.9) * across
    figure, cells = small_multiples(len(methods), across, height=2.0, width=width, share=True)
    for place, (cell, (name, (bins, fitted))) in enumerate(zip(cells, methods.items(), strict=True)):
        colour = palette.colour(name)
        cell.plot([0.5, 1], [0.5, 1], **DOTTED)
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
    told = "; ".join(f"{name}: {_told(bins)}" for name, (bins, _) in methods.items())
    return svg_of(figure, title, told, narrow=narrow)


def _dots(cell: Any, rows: Bins, colour: str, *, filled: bool) -> None:
    total = sum(row.items for row in rows) or 1
    sizes = [max(8.0, _LARGEST * row.items / total) for row in rows]
    xs, ys = [row.confidence for row in rows], [row.accuracy for row in rows]
    cell.plot(xs, ys, color=colour, linewidth=1.0 if filled else 0.6, linestyle="-" if filled else (0, (3, 2)))
    cell.scatter(xs, ys, s=sizes, facecolors=colour if filled else "none", edgecolors=colour, linewidths=0.9, zorder=3)


def _told(bins: Bins) -> str:
    return ", ".join(f"{row.accuracy:.0%} right at {row.confidence:.0%} sure ({row.items})" for row in bins)


def training_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    palette: Palette = PLAIN,
    narrow: bool = False,
) -> str:
    """One value, which the title names, over the steps of training, a line for each method."""
    figure, axes = new_figure(2.9, width=NARROW if narrow else WIDTH)
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
    axes.set_ylabel(textwrap.fill(title, 40))
    label_ends(axes, ends)
    return svg_of(figure, title, "; ".join(said), narrow=narrow)


def heatmap(
    matrix: Sequence[Sequence[float | None]], labels: Sequence[str], *, title: str, narrow: bool = False
) -> str:
    """A square matrix of fractions, darker for more; empty where nothing is known."""
    from matplotlib.patches import Rectangle

    size = len(labels)
    most = NARROW if narrow else WIDTH
    figure, axes = new_figure(min(most, 1.6 + 0.24 * size), width=min(most, 2.6 + 0.26 * size))
    letters = min(7.0, 50.0 * most / size)  # points; rows must not overlap
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            if value is None:
                continue
            share = min(1.0, max(0.0, value))
            axes.add_patch(
                Rectangle((column, row), 0.94, 0.94, facecolor=ACCENT, alpha=0.04 + 0.44 * share, linewidth=0)
            )
            if size <= (8 if narrow else 16):
                axes.text(
                    column + 0.47, row + 0.49, f"{share * 100:.0f}", ha="center", va="center", color=INK, fontsize=6.5
                )
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    axes.set_aspect("equal")
    middles = [i + 0.47 for i in range(size)]
    axes.set_xticks(middles, labels, rotation=90, fontsize=letters)
    axes.set_yticks(middles, labels, fontsize=letters)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    known = [value for row, values in enumerate(matrix) for value in values[:row] if value is not None]
    said = f"{size} by {size}, mean off the diagonal {sum(known) / len(known):.0%}" if known else f"{size} by {size}"
    return svg_of(figure, title, said, narrow=narrow)


def histograms(
    columns: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str, narrow: bool = False
) -> str:
    """Small multiples: for each name the edges of the bins (n + 1) and the counts in them (n)."""
    across, width = (2, NARROW) if narrow else (4, WIDTH)
    figure, cells = small_multiples(len(columns), across, height=1.35, width=width)
    for cell, (name, (edges, counts)) in zip(cells, columns.items(), strict=True):
        widths = [right - left for left, right in itertools.pairwise(edges)]
        cell.bar(edges[:-1], counts, width=widths, align="edge", color=ACCENT, alpha=0.75, linewidth=0)
        cell.set_title(name, fontsize=8.5, color=INK, loc="left")
        cell.set_yticks([])
        cell.grid(visible=False)
        cell.spines["left"].set_visible(False)
        cell.tick_params(labelsize=7)
    figure.subplots_adjust(hspace=0.75, wspace=0.15, left=0.02, right=0.98, top=0.92, bottom=0.1)
    return svg_of(figure, title, "distributions of " + ", ".join(columns), narrow=narrow)


def _smoothed(values: Sequence[float], weight: float = 0.85) -> list[float]:
    """Exponential moving average without the bias of its start."""
    smooth, total, last = [], 0.0, 0.0
    for value in values:
        last = weight * last + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append(last / total)
    return smooth
