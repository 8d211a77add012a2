"""Plots of the report as inline SVG that takes its colours from the page, in daylight, in the dark and in print."""

from __future__ import annotations

import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fspo.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_by_shots", "heatmap", "histograms", "interval_plot", "standalone", "training_curves"]

# matplotlib wants colours of its own; these stand-ins are exchanged for the page's CSS variables.
_INK, _MUTED, _RULE, _ACCENT = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _RULE: "--rule", _ACCENT: "--accent"}
_SERIES = {
    "base": "#050501",
    "few-shot": "#050502",
    "pref-ft": "#050503",
    "ipo": "#050504",
    "fspo": "#050505",
    "oracle": "#050506",
}
_OTHERS = ("#050507", "#050508")
_VARIABLES |= {code: f"--series-{number}" for number, code in enumerate((*_SERIES.values(), *_OTHERS), start=1)}
_WIDTH = 7.2
_MARKERS = {"base": "s", "few-shot": "^", "pref-ft": "D", "ipo": "v", "fspo": "o", "oracle": "P"}

Points = Sequence[tuple[float, Estimate]]


def standalone(svg: str, palette: str) -> str:
    """A plot as a file of its own, from CSS rules that set the page's variables."""
    style = f"<style>{palette} :root {{ background: var(--paper); font-family: system-ui, sans-serif; }}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda opening: opening.group(1) + style, svg, count=1) + "\n"


def accuracy_by_shots(methods: Mapping[str, Points], observer: Points, *, title: str) -> str:
    """Reward accuracy over the number of shots, with intervals, beside the ideal observer's where there is one."""
    figure, axes = _figure(3.6)
    ends = []
    count = len(methods)
    for place, (name, points) in enumerate(methods.items()):
        colour = _colour(name, place)
        shift = 0.05 * (place - (count - 1) / 2)
        xs = [k + shift for k, _ in points]
        axes.errorbar(
            xs,
            [e.value for _, e in points],
            yerr=_reach([e for _, e in points]),
            color=colour,
            marker=_MARKERS.get(name, "x"),
            markersize=4.5,
            linewidth=2.2 if name == "fspo" else 1.3,
            elinewidth=0.8,
            capsize=0,
        )
        ends.append((points[-1][1].value, name, colour))
    if observer:
        axes.plot(
            [k for k, _ in observer], [e.value for _, e in observer], color=_INK, linestyle=(0, (4, 3)), linewidth=1.2
        )
        ends.append((observer[-1][1].value, "ideal observer", _INK))
    axes.axhline(0.5, color=_MUTED, linewidth=0.8, linestyle=":")
    ticks = sorted({k for points in (*methods.values(), observer) for k, _ in points})
    axes.set_xticks(ticks, [f"{k:g}" for k in ticks])
    axes.set_xlabel("shots in context")
    axes.set_ylabel("reward accuracy")
    _percent(axes)
    _label_ends(axes, ends, max(ticks, default=0))
    return _svg(figure, title, _describe_points(methods, observer))


def interval_plot(rows: Sequence[tuple[str, str, Estimate]], *, title: str, chance: float | None = 0.5) -> str:
    """Estimates with their intervals, one line each: (label, method, estimate)."""
    figure, axes = _figure(0.7 + 0.3 * len(rows))
    places = list(range(len(rows)))[::-1]
    for place, (_, method, estimate) in zip(places, rows, strict=True):
        colour = _colour(method, place)
        if estimate.low is not None and estimate.high is not None:
            axes.plot(
                [estimate.low, estimate.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round"
            )
        axes.plot([estimate.value], [place], marker=_MARKERS.get(method, "o"), color=colour, markersize=6)
        axes.annotate(
            f"{estimate.value:.1%}",
            (1.02, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=_INK,
            fontsize=8.5,
            annotation_clip=False,
        )
    if chance is not None:
        axes.axvline(chance, color=_MUTED, linewidth=0.8, linestyle=":")
    axes.set_yticks(places, [label for label, _, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    low, high = (
        min((e.low if e.low is not None else e.value for *_, e in rows), default=0),
        max((e.high if e.high is not None else e.value for *_, e in rows), default=1),
    )
    axes.set_xlim(min(0.25, low - 0.03), max(0.75, high + 0.03))
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=_RULE, linewidth=0.6)
    axes.xaxis.set_major_formatter(_percent_formatter())
    axes.spines["left"].set_visible(False)
    return _svg(figure, title, "; ".join(f"{label}: {_words(estimate)}" for label, _, estimate in rows))


def training_curves(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str, ylabel: str) -> str:
    """One value over the steps of training, a line for each method."""
    figure, axes = _figure(2.9)
    ends, said, right = [], [], 0.0
    for place, (name, points) in enumerate(curves.items()):
        colour = _colour(name.split(" ")[0], place)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, color=colour, linewidth=0.7, alpha=0.35)
        smooth = _smoothed(ys)
        axes.plot(xs, smooth, color=colour, linewidth=1.7)
        if smooth:
            axes.plot([xs[-1]], [smooth[-1]], marker=_MARKERS.get(name.split(" ")[0], "x"), color=colour, markersize=4)
            ends.append((smooth[-1], name, colour))
            right = max(right, xs[-1])
            said.append(f"{name} from {ys[0]:.3g} to {ys[-1]:.3g} in {len(ys)} records")
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.margins(x=0.02)
    _label_ends(axes, ends, right)
    return _svg(figure, title, "; ".join(said))


def heatmap(matrix: Sequence[Sequence[float | None]], labels: Sequence[str], *, title: str) -> str:
    """A square matrix of fractions, darker for more; empty where nothing is known."""
    from matplotlib.patches import Rectangle

    size = len(labels)
    figure, axes = _figure(min(7.2, 1.6 + 0.24 * size), width=min(_WIDTH, 2.6 + 0.26 * size))
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            if value is None:
                continue
            share = min(1.0, max(0.0, value))
            axes.add_patch(
                Rectangle((column, row), 0.94, 0.94, facecolor=_ACCENT, alpha=0.04 + 0.9 * share, linewidth=0)
            )
            if size <= 16:
                axes.text(
                    column + 0.47, row + 0.49, f"{share * 100:.0f}", ha="center", va="center", color=_INK, fontsize=6.5
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
    return _svg(figure, title, said)


def histograms(columns: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str) -> str:
    """Small multiples: for each name the edges of the bins (n + 1) and the counts in them (n)."""
    across = 4
    down = -(-len(columns) // across)
    figure, _ = _figure(1.25 * down + 0.2, axes=False)
    grid = figure.subplots(down, across, squeeze=False)
    cells = [cell for row in grid for cell in row]
    for cell, (name, (edges, counts)) in zip(cells, columns.items(), strict=False):
        widths = [right - left for left, right in itertools.pairwise(edges)]
        cell.bar(edges[:-1], counts, width=widths, align="edge", color=_ACCENT, alpha=0.75, linewidth=0)
        cell.set_title(name, fontsize=8.5, color=_INK, loc="left")
        _plain(cell)
        cell.set_yticks([])
        cell.grid(visible=False)
        cell.spines["left"].set_visible(False)
        cell.tick_params(labelsize=7)
    for cell in cells[len(columns) :]:
        cell.set_visible(False)
    figure.subplots_adjust(hspace=0.75, wspace=0.15, left=0.02, right=0.98, top=0.92, bottom=0.1)
    return _svg(figure, title, "distributions of " + ", ".join(columns))


def _figure(height: float, *, width: float = _WIDTH, axes: bool = True) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0.0)
    if not axes:
        return figure, None
    area = figure.add_subplot()
    _plain(area)
    area.grid(visible=True, axis="y", color=_RULE, linewidth=0.6)
    return figure, area


def _plain(axes: Axes) -> None:
    axes.patch.set_alpha(0.0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, length=0, labelsize=8.5)
    axes.xaxis.label.set(color=_MUTED, size=8.5)
    axes.yaxis.label.set(color=_MUTED, size=8.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=_RULE)


def _colour(method: str, place: int) -> str:
    return _SERIES.get(method, _OTHERS[place % len(_OTHERS)])


def _percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(_percent_formatter())
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.4), min(max(high, 0.8), 1.02))


def _percent_formatter() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0, decimals=0)


def _reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    return [
        [0.0 if e.low is None else max(0.0, e.value - e.low) for e in estimates],
        [0.0 if e.high is None else max(0.0, e.high - e.value) for e in estimates],
    ]


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], right: float) -> None:
    """Names at the ends of the lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.19 / axes.get_figure().get_size_inches()[1]  # type: ignore[union-attr]
    place = float("-inf")
    for value, name, colour in sorted(ends):
        place = max(value, place + gap)
        axes.annotate(
            name, (right, place), xytext=(10, 0), textcoords="offset points", va="center", color=colour, fontsize=8.5,
            annotation_clip=False,
        )  # fmt: skip


def _smoothed(values: Sequence[float], weight: float = 0.85) -> list[float]:
    """Exponential moving average without the bias of its start."""
    smooth, total, last = [], 0.0, 0.0
    for value in values:
        last = weight * last + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append(last / total)
    return smooth


def _words(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1%}, no interval"
    return f"{estimate.value:.1%}, interval {estimate.low:.1%} to {estimate.high:.1%}"


def _describe_points(methods: Mapping[str, Points], observer: Points) -> str:
    lines = dict(methods) | ({"ideal observer": observer} if observer else {})
    return "; ".join(
        f"{name}: " + ", ".join(f"{e.value:.0%} at {k:g}" for k, e in points) for name, points in lines.items()
    )


def _svg(figure: Figure, title: str, description: str) -> str:
    """The figure as an `<svg>` with a title and a description for readers who don't see it."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(
            buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for code, variable in _VARIABLES.items():
        text = text.replace(code, f"var({variable})")
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", text)
    prefix = re.sub(r"\W+", "-", title.lower()).strip("-")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", text)
    label = f"<title>{html.escape(title)}</title><desc>{html.escape(description)}</desc>"
    width = re.search(r'viewBox="0 0 ([\d.]+)', text)
    size = f'style="max-width:{float(width.group(1)) * 1.55:.0f}px"' if width else ""
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"([^>]*)>', r"<svg \1\2\3>", text, count=1)
    return re.sub(
        r"<svg ([^>]*)>", rf'<svg role="img" aria-label="{html.escape(title)}" {size} \1>{label}', text, count=1
    )
