"""Methods of several runs side by side, as one self-contained page."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from fspo.evaluation import plots
from fspo.evaluation.across import Across
from fspo.evaluation.report.plotted import Plotted, estimate_rows
from fspo.evaluation.report.templating import environment
from fspo.files import write_text

__all__ = ["write_comparison"]


def write_comparison(found: Across, out: Path) -> Path:
    """Write the page to `out`.

    Raises:
        StorageError: it can't be written.
    """
    label = found.measure.replace("_", " ").replace("/", ", ")
    rows = [(entrant.name, _method(entrant.name), entrant.estimate) for entrant in found.entrants]
    chance = 0.5 if found.measure.startswith(("reward_accuracy", "win_rate")) else None
    title = f"Methods by {label}"
    svg = Markup(plots.interval_plot(rows, title=title, chance=chance, percent=found.percent))
    numbers = estimate_rows(({"method": e.name, "measure": e.variant}, e.estimate) for e in found.entrants)
    standing = Plotted("methods", title, svg, numbers)
    pairs = Plotted("pairs", "Every two methods", Markup(), [pair.to_json() for pair in found.pairs])
    view = {"found": found, "label": label, "standing": standing, "pairs": pairs}
    write_text(out, environment().get_template("comparison.html.j2").render(**view))
    return out


def _method(name: str) -> str:
    """The method of a name with its run, for the colour."""
    return name.rpartition(": ")[2]
