"""Methods of several runs side by side, as one self-contained page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fspo.evaluation.plots import charts
from fspo.evaluation.plots.drawing import Palette
from fspo.evaluation.report.formatting import environment
from fspo.evaluation.report.plot_entry import PlotEntry, estimate_rows
from fspo.evaluation.run_comparison.compare_runs import RunComparison
from fspo.files import write_text

__all__ = ["write_comparison"]


def write_comparison(found: RunComparison, out: Path) -> Path:
    """Write the page to `out`.

    Raises:
        StorageError: it can't be written.
    """
    label = found.measure.replace("_", " ").replace("/", ", ")
    rows = [(e.name, e.name.rpartition(": ")[2], e.estimate) for e in found.methods]
    title = f"Methods by {label}"
    palette = Palette.of(method for _, method, _ in rows)
    draw = partial(charts.interval_plot, rows, chance=found.chance, percent=found.percent, palette=palette)
    numbers = estimate_rows(({"method": e.name, "measure": e.variant}, e.estimate) for e in found.methods)
    standing = PlotEntry("methods", title, draw, numbers, "shares as fractions of 1" if found.percent else "in units")
    pairs = PlotEntry("pairs", "Every two methods", None, [pair.to_json() for pair in found.pairs])
    variants = {e.name: e.variant.partition("/")[2] for e in found.methods}
    view = {"found": found, "label": label, "standing": standing, "pairs": pairs, "variants": variants}
    pages = environment()
    write_text(out, pages.get_template("comparison.html.j2").render(**view))
    return out
