"""`fspo eval`: measure the methods of a run on users and questions they never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.options import ConfigFile, DryRun, Existing, OnExisting, OutputFolder, Overrides, configured, console

__all__ = ["evaluate"]


def evaluate(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    on_existing: OnExisting = Existing.RESUME,
    dry_run: DryRun = False,
) -> None:
    """Measure reward accuracy, sensitivity to the labels, and win rates, and write metrics.json.

    Examples:
      fspo eval --config configs/reviews-cpu.yaml

      fspo eval runs/reviews-cpu --set evaluation.answers=8 --on-existing overwrite
    """
    settings = configured(file, config, overrides, output)
    from fspo.cli import stages
    from fspo.cli.folder import EVALUATION, RunFolder

    out = console()
    folder = RunFolder(settings)
    if dry_run:
        stages.preview(folder, [EVALUATION], on_existing, out)
        return
    with folder.opened([EVALUATION], on_existing), stages.shown(out) as progress:
        stages.evaluate(folder, progress)
    stages.print_table(folder, out)
