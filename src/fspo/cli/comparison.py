"""`fspo compare`: many methods on several domains, from nothing to a ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.options import ConfigFile, DryRun, OutputFolder, Overrides, configured, console
from fspo.cli.output import print_plan
from fspo.cli.progress import shown
from fspo.cli.store_options import recording_people
from fspo.runs import benchmarks, pipeline
from fspo.runs.comparison import standings_of, write_standings
from fspo.runs.existing import Existing
from fspo.runs.folder import RunFolder
from fspo.runs.preflight import opened

__all__ = ["compare"]


def compare(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    dry_run: DryRun = False,
) -> None:
    """Train all methods of a run, measure them on its domain and on each of its benchmarks, and rank them.

    You can interrupt it at any moment. The same command then resumes and ends with the same results.

    Examples:
      fspo compare configs/compare-readers.yaml

      fspo compare configs/compare.yaml
    """
    settings = configured(file, config, overrides, output, runs_code=True)
    out = console()
    folder = RunFolder(settings)
    for name in settings.benchmarks:
        benchmarks.check_shots(folder, name)
    if dry_run:
        print_plan(folder, folder.parts(), Existing.RESUME, out)
        return
    with opened(folder, folder.parts(), Existing.RESUME), shown(out) as progress:
        pipeline.synth(folder, progress)
        pipeline.train(folder, progress, record=recording_people(progress))
        pipeline.evaluate(folder, progress)
        pipeline.report(folder)
    for name in settings.benchmarks:
        with benchmarks.opened(folder, name, Existing.RESUME), shown(out) as progress:
            benchmarks.evaluate_benchmark(folder, name, progress)
    place = write_standings(folder, standings_of(folder))
    out.print(f"\n{(place / 'README.md').read_text(encoding='utf-8')}", markup=False)
    out.print(f"Comparison: {place}", markup=False)
