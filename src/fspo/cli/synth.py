"""`fspo synth`: synthetic users and preferences, or the import of a run's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.options import ConfigFile, DryRun, Existing, OnExisting, OutputFolder, Overrides, configured, console

__all__ = ["synth"]


def synth(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    on_existing: OnExisting = Existing.RESUME,
    dry_run: DryRun = False,
) -> None:
    """Make the dataset of a run: questions, responses, users, labels, splits and checks.

    Examples:
      fspo synth --config configs/reviews-cpu.yaml

      fspo synth --config configs/reviews-cpu.yaml --set seed=1 --on-existing overwrite
    """
    settings = configured(file, config, overrides, output)
    from fspo.cli import stages
    from fspo.cli.folder import DATA, RunFolder

    out = console()
    folder = RunFolder(settings)
    if dry_run:
        stages.preview(folder, [DATA], on_existing, out)
        return
    with folder.opened([DATA], on_existing), stages.shown(out) as progress:
        dataset = stages.synth(folder, progress)
    out.print(f"{len(dataset):,} preferences of {len(dataset.users)} users are in {folder.data}.", markup=False)
