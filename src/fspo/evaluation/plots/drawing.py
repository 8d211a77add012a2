"""What all plots share: colours that stand for the page's, plain axes, and figures as `<svg>` that can be read out."""

from __future__ import annotations

import html
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fspo.evaluation.statistics.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "BESIDE",
    "DOTTED",
    "FONT",
    "INK",
    "MUTED",
    "NARROW",
    "OBSERVER",
    "PLAIN",
    "RULE",
    "WIDTH",
    "Palette",
    "label_ends",
    "new_figure",
    "percent_axis",
    "percent_formatter",
    "plain",
    "reach",
    "said",
    "small_multiples",
    "standalone",
    "svg_of",
]

# matplotlib wants colours of its own; these stand-ins are exchanged for the page's CSS variables.
INK, MUTED, RULE, ACCENT = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", ACCENT: "--accent"}
_MARKERS = {"base": "s", "few-shot": "^", "pref-ft": "D", "ipo": "v", "fspo": "o", "oracle": "P"}
_MARKERS |= {"pref-ft-cot": "d", "fspo-rat": "h"}
_OTHER_MARKERS = ("X", "<", ">", "p", "*")
_SERIES = {name: f"#0505{number:02}" for number, name in enumerate(_MARKERS, start=1)}
_OTHERS = ("#050509", "#050510", "#050511", "#050512")
_VARIABLES |= {code: f"--series-{number}" for number, code in enumerate((*_SERIES.values(), *_OTHERS), start=1)}

OBSERVER = "ideal observer"
"""What stands among methods as a ceiling."""

WIDTH = 6.2
"""Inches of a plot on a wide screen; with more, its letters would be too small on the page."""

NARROW = 2.5
"""Inches of the drawn area of a plot on a phone; names stand beside it."""

FONT = 9.0
"""Points."""

DOTTED: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "linestyle": ":"}
"""The line of chance, of no loss, or of no difference."""
BESIDE: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": FONT}
"""A text beside the area that is drawn in, at the height of what it is about."""

_MARGIN = 0.04
"""Inches around a plot."""

_PIXELS = 1.62
"""Pixels of the page for each point of a figure, at most."""


@dataclass(frozen=True)
class Palette:
    """The colour and the mark of every method, the same in all plots of a page."""

    others: tuple[str, ...] = ()
    """Methods without a colour of their own, in order: four differ in colour, twenty in colour or mark."""

    @classmethod
    def of(cls, methods: Iterable[str]) -> Palette:
        """The palette of a page that shows these methods."""
        return cls(tuple(sorted({name for name in methods if name not in _SERIES})))

    def colour(self, method: str) -> str:
        """The colour of a method; the ideal observer is drawn in ink."""
        if method == OBSERVER:
            return INK
        return _SERIES.get(method, _OTHERS[self._place(method) % len(_OTHERS)])

    def marker(self, method: str) -> str:
        """The mark of a method, so that colour is never all that tells methods apart."""
        return _MARKERS.get(method, _OTHER_MARKERS[self._place(method) % len(_OTHER_MARKERS)])

    def _place(self, method: str) -> int:
        return self.others.index(method) if method in self.others else zlib.crc32(method.encode())


PLAIN = Palette()


def standalone(svg: str, palette: str) -> str:
    """A plot as a file of its own, from CSS rules that set the page's variables."""
    style = f"<style>{palette} :root {{ background: var(--paper); font-family: system-ui, sans-serif; }}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda opening: opening.group(1) + style, svg, count=1) + "\n"


def new_figure(height: float, *, width: float = WIDTH, axes: bool = True) -> tuple[Figure, Any]:
    """A figure of so many inches without a ground of its own, with one area to draw in unless `axes` is false."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.patch.set_visible(False)  # it would reach beyond what is cropped
    if not axes:
        return figure, None
    area = figure.add_subplot()
    plain(area)
    area.grid(visible=True, axis="y", color=RULE, linewidth=0.6)
    return figure, area


def small_multiples(
    count: int, across: int, *, height: float, width: float = WIDTH, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` plain areas in rows of `across`, each `height` inches high; with `share` on one scale."""
    down = -(-count // across)
    figure, _ = new_figure(height * down, width=width, axes=False)
    cells = [cell for row in figure.subplots(down, across, squeeze=False, sharex=share, sharey=share) for cell in row]
    for cell in cells:
        plain(cell)
    for cell in cells[count:]:
        cell.set_visible(False)
    return figure, cells[:count]


def plain(axes: Axes) -> None:
    """Axes of two thin lines, with muted words."""
    axes.patch.set_alpha(0.0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0, labelsize=FONT)
    axes.xaxis.label.set(color=MUTED, size=FONT)
    axes.yaxis.label.set(color=MUTED, size=FONT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=RULE)


def percent_axis(axes: Axes) -> None:
    """An upright axis of shares in percent, from 40 to 80 at least."""
    axes.yaxis.set_major_formatter(percent_formatter())
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.4), min(max(high, 0.8), 1.02))


def percent_formatter() -> Any:
    """Shares as whole percent."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0, decimals=0)


def reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    """How far intervals reach below and above their values; nothing where there is none."""
    return [
        [0.0 if e.low is None else max(0.0, e.value - e.low) for e in estimates],
        [0.0 if e.high is None else max(0.0, e.high - e.value) for e in estimates],
    ]


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names at the height where lines end (value, name, colour), pushed apart where they would overlap.

    They stand right of the area that is drawn in, so that no line of it runs through them.
    """
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    gap = (high - low) * 0.2 / axes.get_figure().get_size_inches()[1]  # type: ignore[union-attr]
    place = float("-inf")
    for value, name, colour in sorted(ends):
        place = max(value, place + gap)
        beside = BESIDE | {"xytext": (5, 0), "textcoords": "offset points"}
        axes.annotate(name, (1.0, place), color=colour, annotation_clip=False, **beside)


def said(estimate: Estimate, *, percent: bool = True) -> str:
    """An estimate in words."""
    form = "{:.1%}" if percent else "{:.3g}"
    if estimate.low is None or estimate.high is None:
        return f"{form.format(estimate.value)}, no interval"
    return f"{form.format(estimate.value)}, interval {form.format(estimate.low)} to {form.format(estimate.high)}"


def svg_of(figure: Figure, title: str, description: str, *, narrow: bool = False) -> str:
    """The figure as an `<svg>` with a title and a description for readers who don't see it.

    Dollar signs in names are dollar signs: no text is read as a formula. A page holds each plot twice, wide and narrow,
    and shows the one that fits the screen; the ids of the two differ.
    """
    svg = _cropped(figure, title)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for code, variable in _VARIABLES.items():
        svg = svg.replace(code, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", svg)
    size_class = "narrow" if narrow else "wide"
    prefix = re.sub(r"\W+", "-", title.lower()).strip("-") + f"-{size_class}"
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", svg)
    label = f'<title id="{prefix}-title">{html.escape(title)}</title>'
    label += f'<desc id="{prefix}-desc">{html.escape(description)}</desc>'
    width = re.search(r'viewBox="\S+ \S+ ([\d.]+)', svg)
    size = f'class="{size_class}" '
    size += f'style="max-width:{float(width.group(1)) * _PIXELS:.0f}px"' if width else ""
    spoken = f'role="img" aria-labelledby="{prefix}-title" aria-describedby="{prefix}-desc"'
    # A function, since a backslash in a name would be read as an escape.
    return re.sub(r"<svg ([^>]*)>", lambda opening: f"<svg {spoken} {size} {opening[1]}>{label}", svg, count=1)


def _cropped(figure: Figure, salt: str) -> str:
    """The figure as matplotlib's SVG, cropped to what is drawn; matplotlib itself would draw it twice for that."""
    import matplotlib
    from matplotlib.text import Text

    def measure(event: Any) -> None:
        found.append(figure.get_tightbbox(event.renderer).padded(_MARGIN))

    found: list[Any] = []
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.StringIO()
    connection = figure.canvas.mpl_connect("draw_event", measure)
    # Ticks that are made only now go by the settings, and with "tight" it would be drawn twice.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False, "savefig.bbox": "standard"}
    ):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    figure.canvas.mpl_disconnect(connection)
    (box,), top = found, figure.get_size_inches()[1]
    left, high, across, down = (72 * inches for inches in (box.x0, top - box.y1, box.width, box.height))
    size = f'width="{across:.6f}pt" height="{down:.6f}pt" viewBox="{left:.6f} {high:.6f} {across:.6f} {down:.6f}"'
    svg = buffer.getvalue()
    found_at = 'width="[^"]*" height="[^"]*" viewBox="[^"]*"'
    cropped, replaced = re.subn(found_at, size, svg[svg.index("<svg") :], count=1)
    assert replaced, "matplotlib writes the size of an SVG in another order"
    return cropped
