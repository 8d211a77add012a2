"""`fspo report`: write the report of a run from the files on disk, and open it."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.options import ConfigFile, DryRun, OutputFolder, Overrides, configured, console
from fspo.cli.output import print_table
from fspo.evaluation.benchmarks.benchmark import benchmark_of
from fspo.evaluation.report.page import write_figures
from fspo.runs import pipeline
from fspo.runs.folder import RunFolder

__all__ = ["report"]


def report(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    benchmark: Annotated[
        str, typer.Option("--benchmark", help="Report the results on this benchmark.", metavar="NAME")
    ] = "",
    figures: Annotated[Path | None, typer.Option(help="Also write the plots as SVG files to this folder.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Print the table of a run, and write its report.html, one self-contained page.

    Examples:
      fspo report --config configs/demo.yaml

      fspo report runs/demo --open

      fspo report runs/demo --figures figures

      fspo report runs/demo --benchmark prism
    """
    settings = configured(file, config, overrides, output)
    out = console()
    if benchmark:
        benchmark_of(benchmark)
    folder = RunFolder(settings)
    pipeline.need_results(folder, benchmark)  # damaged results are refused before anything is written
    if dry_run:
        out.print(f"Would write {folder.report_on(benchmark)}.", markup=False)
        return
    path = pipeline.report(folder, benchmark)
    print_table(folder, out, benchmark)
    if figures is not None:
        for plot in write_figures(folder.path, figures, benchmark=benchmark):
            out.print(f"Plot: {plot}", markup=False)
    out.print(f"\nReport: {path}", markup=False)
    if open_page and not webbrowser.open(path.resolve().as_uri()):
        out.print(f"There is no browser on this machine; open {path.resolve()} in one.", markup=False)
