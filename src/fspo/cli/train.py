"""`fspo train`: train the methods of a run on its dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.confirmation import confirmation
from fspo.cli.options import ConfigFile, DryRun, OnExisting, OutputFolder, Overrides, Yes, configured, console
from fspo.cli.output import print_plan
from fspo.cli.progress import shown
from fspo.cli.store_options import recording_people
from fspo.runs import pipeline, processes
from fspo.runs.existing import Existing
from fspo.runs.folder import RunFolder, method_part
from fspo.runs.preflight import opened

__all__ = ["train"]


def train(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Train only this method. Can be repeated.")
    ] = None,
    on_existing: OnExisting = Existing.RESUME,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Train every method of a run that has its own weights: readers first, each policy after what it starts from.

    Examples:
      fspo train --config configs/demo.yaml

      fspo train --config configs/demo.yaml --method fspo --set training.fspo.steps=200 --on-existing overwrite

      accelerate launch --config_file configs/accelerate/ddp.yaml -m fspo train --config configs/demo.yaml
    """
    settings = configured(file, config, overrides, output, runs_code=True)
    out = console()
    folder = RunFolder(settings)
    names = pipeline.trained_methods(folder, method)
    own = pipeline.data_to_take_over(folder)
    parts = [*own, *map(method_part, names)]
    if dry_run:
        if processes.is_first():
            print_plan(folder, parts, on_existing, out)
        return
    with (
        processes.together(),
        opened(folder, parts, on_existing, confirmation(folder, yes=yes)),
        shown(out) as progress,
    ):
        if own and processes.is_first():
            with processes.leading():
                pipeline.synth(folder, progress)
        elif own:
            processes.follow()
        for path in pipeline.train(folder, progress, names, recording_people(progress)):
            kind = "policy" if (path / "policy.json").is_file() else "reader"
            progress.say(f"Trained {kind}: {path}")
