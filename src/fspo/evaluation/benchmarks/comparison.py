"""Our rows beside the published ones: as a record, a table for the terminal and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from fspo.evaluation.artifacts import estimates_of
from fspo.evaluation.benchmarks.benchmark import Benchmark, Protocol
from fspo.evaluation.metrics.table import missing_interval_note
from fspo.evaluation.report.formatting import environment
from fspo.evaluation.statistics.intervals import Estimate
from fspo.methods.table import METHODS
from fspo.modeling.rendering import Context

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Comparison", "Figure", "Source", "comparison_page", "comparison_table", "published"]

_LABELS: Mapping[str, str] = {"reward_accuracy": "reward accuracy", "win_rate": "win rate over the base model"}

_TOLD: Mapping[Context, str] = {
    "none": "nothing",
    "shots": "shots",
    "description": "a description",
    "both": "shots, and a description of its own",
}

_BESIDE = ("reward_accuracy", "label_flip_rate", "user_swap_drop", "win_rate")
"""Measures that the page shows of our rows besides the benchmark's own."""


@dataclass(frozen=True)
class Comparison:
    """What a run reached on a benchmark, beside what others did."""

    benchmark: Benchmark
    protocol: Protocol
    """As it was followed."""
    model: str
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """The contents of `metrics.json`."""
    data: Mapping[str, Any]
    """Where the data came from, and how much of them there is."""
    notes: Sequence[str]
    """What of this run departs from the protocol, or was left out."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The published rows."""
        return published(self.benchmark.name)

    @property
    def ours(self) -> dict[str, Estimate]:
        """Method -> the benchmark's measure, of those that have it."""
        rows = estimates_of(self.metrics)
        return {name: row[self.benchmark.measure] for name, row in rows.items() if self.benchmark.measure in row}

    @property
    def differences(self) -> list[str]:
        """All that stands between our rows and the published ones."""
        return [*self.notes, *self.benchmark.differences]

    def record(self) -> dict[str, Any]:
        """The comparison, ready for JSON; estimates are shares, published figures percent as published."""
        return {
            "benchmark": self.benchmark.name,
            "title": self.benchmark.title,
            "measure": self.benchmark.measure,
            "model": self.model,
            "protocol": asdict(self.protocol),
            "data": dict(self.data),
            "ours": {name: estimate.to_json() for name, estimate in self.ours.items()},
            "published": [asdict(figure) for figure in self.figures],
            "differences": self.differences,
        }


def comparison_table(comparison: Comparison) -> Table:
    """The benchmark's measure of every row, ours first, and below it what differs."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=comparison.benchmark.title,
        caption=escape(_caption(comparison)),
        header_style="bold",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("", "model", "knows of the user"):
        table.add_column(column)
    table.add_column(f"{_LABELS[comparison.benchmark.measure]}, %", justify="right")
    table.add_column("source")
    for name, estimate in comparison.ours.items():
        known = name in METHODS  # else a reward model from elsewhere
        about = (escape(comparison.model), _TOLD[METHODS[name].context]) if known else ("", "")
        table.add_row(f"[bold]{escape(name)}[/bold]", *about, _interval(estimate), "this run")
    table.add_section()
    for figure in comparison.figures:
        table.add_row(figure.name, figure.model, figure.sees, _value(figure), figure.source.where)
    return table


def comparison_page(comparison: Comparison) -> str:
    """The same as Markdown, with our other measures."""
    metrics = estimates_of(comparison.metrics)
    shown = [name for name in _BESIDE if any(name in row for row in metrics.values())]
    view = {"comparison": comparison, "metrics": metrics, "shown": shown, "amount": _amount(comparison)}
    how = {"label": _LABELS[comparison.benchmark.measure], "interval": _interval, "value": _value}
    return environment().get_template("benchmark.md.j2").render(**view, **how)


def _caption(comparison: Comparison) -> str:
    lines = [
        _amount(comparison),
        missing_interval_note((_LABELS[comparison.benchmark.measure], e) for e in comparison.ours.values()),
    ]
    if not comparison.ours:
        lines.append(f"Nothing of this run has a {_LABELS[comparison.benchmark.measure]}; see the other measures.")
    if not comparison.figures:
        lines.append("No published figure could be read in its source and is of this protocol.")
    return "\n".join([*filter(None, lines), *(f"- {line}" for line in comparison.differences)])


def _amount(comparison: Comparison) -> str:
    data = comparison.data
    return f"{data['users']:,} users, {data['pairs']:,} pairs, {comparison.protocol.shots} shots."


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value * 100:.1f}"
    return f"{estimate.value * 100:.1f} ({estimate.low * 100:.1f}…{estimate.high * 100:.1f})"


def _value(figure: Figure) -> str:
    return f"{figure.value:g}" if figure.error is None else f"{figure.value:.2f} ± {figure.error:.2f}"


@dataclass(frozen=True)
class Source:
    """Where figures stand."""

    paper: str
    where: str
    error: str | None
    """What its errors are."""


@dataclass(frozen=True)
class Figure:
    """One published figure, in percent."""

    name: str
    model: str
    value: float
    source: Source
    error: float | None = None
    sees: str = ""
    """What the method knows of the user."""


def published(benchmark: str) -> tuple[Figure, ...]:
    """The figures of others on a benchmark, in the order of the file; none where none could be read in their source."""
    record = _record()
    return tuple(
        Figure(**row | {"source": Source(**record["sources"][row["source"]])})
        for row in record["benchmarks"].get(benchmark, ())
    )


@cache
def _record() -> dict[str, Any]:
    text = files("fspo.evaluation.benchmarks").joinpath("published.yaml").read_text(encoding="utf-8")
    record: dict[str, Any] = yaml.safe_load(text)
    return record
