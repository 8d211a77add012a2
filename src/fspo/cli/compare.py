"""`fspo eval compare`: methods of several runs side by side on the same items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fspo.cli.options import console
from fspo.evaluation.benchmarks.benchmark import benchmark_of
from fspo.evaluation.report.formatting import chance, detectable
from fspo.evaluation.run_comparison.compare_runs import Pair, RunComparison, compare_runs
from fspo.evaluation.run_comparison.page import write_comparison
from fspo.evaluation.statistics.intervals import Estimate
from fspo.files import write_json
from fspo.runs.made import check_file_target, is_page, with_keys

if TYPE_CHECKING:
    from rich.table import Table


__all__ = ["compare"]


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of evaluated runs.", metavar="RUN")],
    measure: Annotated[
        str,
        typer.Option(
            "--measure",
            help="Measure to compare: reward_accuracy or win_rate (each method with its headline variant), or a "
            "variant by name, such as reward_accuracy/antisymmetric, win_rate/guided, label_flip_rate or regret. The "
            "default is the first that the runs have.",
        ),
    ] = "",
    methods: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Compare only this method. Can be repeated.")
    ] = None,
    benchmark: Annotated[
        str, typer.Option("--benchmark", help="Compare results on this benchmark.", metavar="NAME")
    ] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it as JSON to this file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Also write it as one self-contained page.")] = None,
) -> None:
    """Compare every two methods of evaluated runs on the same items.

    Differences are paired by item and clustered by user. Holm's method corrects the p values of all pairs together.
    The runs must have been evaluated on the same users, prompts, shots and seed; otherwise the command says what
    differs. A method with identical items in all runs appears once.

    Examples:
      fspo eval compare runs/demo runs/longer

      fspo eval compare runs/demo runs/longer --method fspo --measure win_rate --html compared.html

      fspo eval compare runs/demo runs/longer --benchmark prism
    """
    for path, is_ours in ((json_file, with_keys("measure", "methods", "pairs")), (html_file, is_page)):
        if path is not None:
            check_file_target(path, is_ours)
    if benchmark:
        benchmark_of(benchmark)
    found = compare_runs(runs, measure=measure, methods=methods or (), benchmark=benchmark)
    out = console()
    out.print(standings(found))
    out.print(pairs(found))
    if found.same:
        out.print(f"The same item by item in several runs, shown once: {', '.join(found.same)}.", markup=False)
    if found.left_out:
        out.print(f"Without this measure: {', '.join(found.left_out)}.", markup=False)
    if json_file is not None:
        write_json(json_file, found.to_json())
        out.print(f"JSON: {json_file}", markup=False)
    if html_file is not None:
        out.print(f"Page: {write_comparison(found, html_file)}", markup=False)


def standings(found: RunComparison) -> Table:
    """Every method by itself, the best first."""
    from rich.markup import escape
    from rich.table import Table

    users = max(row.estimate.users for row in found.methods)
    unit = "Percent" if found.percent else "In units"
    table = Table(
        title=escape(found.measure.replace("_", " ")),
        caption=f"{unit}, with 95% intervals clustered by user; {users} users.",
        header_style="bold",
        title_justify="left",
    )
    for column in ("method", "value", "95% interval", "items"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in found.methods:
        e = row.estimate
        table.add_row(
            f"{escape(row.name)} [dim]{escape(row.variant.partition('/')[2])}[/dim]",
            _said(e.value, found),
            _limits(e, found),
            str(e.items),
        )
    return table


def pairs(found: RunComparison) -> Table:
    """Every two methods."""
    from rich.table import Table

    table = Table(
        title="On the same items, the first minus the second",
        caption="Each interval is for its pair alone, while the p values of all pairs are corrected together (Holm), "
        "so an interval can exclude 0 although p is above 0.05. Detectable: the true difference that these items "
        "would show with a chance of 80% after that correction.",
        header_style="bold",
        title_justify="left",
    )
    for column in ("first", "second", "difference", "95% interval", "p, corrected", "detectable"):
        table.add_column(column, justify="left" if column in ("first", "second") else "right")
    for pair in found.pairs:
        table.add_row(*_row(pair, found))
    return table


def _row(pair: Pair, found: RunComparison) -> tuple[str, ...]:
    from rich.markup import escape

    difference = pair.comparison.difference
    bold = ("[bold]", "[/bold]") if pair.comparison.significant else ("", "")
    return (
        escape(pair.first),
        escape(pair.second),
        f"{bold[0]}{_said(difference.value, found, sign='+')}{bold[1]}",
        _limits(difference, found),
        chance(pair.comparison.adjusted),
        detectable(pair.comparison.detectable, percent=found.percent),
    )


def _limits(found: Estimate, of: RunComparison) -> str:
    return (
        "no interval" if found.low is None or found.high is None else f"{_said(found.low, of)}…{_said(found.high, of)}"
    )


def _said(value: float, found: RunComparison, sign: str = "") -> str:
    return f"{value * 100:{sign}.1f}" if found.percent else f"{value:{sign}.3f}"
