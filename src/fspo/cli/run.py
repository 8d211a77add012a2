"""`fspo run`: the whole loop, from nothing to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.confirmation import confirmation
from fspo.cli.options import ConfigFile, DryRun, OnExisting, OutputFolder, Overrides, Yes, configured, console
from fspo.cli.output import print_plan, print_table
from fspo.cli.progress import shown
from fspo.cli.store_options import recording_people
from fspo.runs import pipeline
from fspo.runs.existing import Existing
from fspo.runs.folder import RunFolder
from fspo.runs.preflight import opened

__all__ = ["run"]


def run(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    on_existing: OnExisting = Existing.RESUME,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Generate the data, train every method, evaluate, and write the report.

    You can interrupt it at any moment. The same command then resumes and ends with the same results.

    Examples:
      fspo run configs/demo.yaml

      fspo run --config configs/demo.yaml --set training.fspo.steps=100 --output runs/longer

      fspo run configs/demo.yaml --dry-run
    """
    settings = configured(file, config, overrides, output, runs_code=True)
    out = console()
    folder = RunFolder(settings)
    if dry_run:
        print_plan(folder, folder.parts(), on_existing, out)
        return
    with opened(folder, folder.parts(), on_existing, confirmation(folder, yes=yes)), shown(out) as progress:
        pipeline.synth(folder, progress)
        pipeline.train(folder, progress, record=recording_people(progress))
        pipeline.evaluate(folder, progress)
        path = pipeline.report(folder)
    print_table(folder, out)
    out.print(f"\nReport: {path}", markup=False)
