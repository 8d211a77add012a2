"""`fspo synth`: synthetic users and preferences, or the import of a run's own data."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.confirmation import confirmation
from fspo.cli.options import ConfigFile, DryRun, OnExisting, OutputFolder, Overrides, Yes, configured, console
from fspo.cli.output import print_plan
from fspo.cli.progress import shown
from fspo.errors import ConfigError
from fspo.runs import pipeline
from fspo.runs.config import RunConfig, load_config
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, RunFolder
from fspo.runs.preflight import opened

__all__ = ["synth"]


class Where(StrEnum):
    """Who does the work."""

    LOCAL = "local"
    RAY = "ray"


def synth(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    domain: Annotated[
        str | None,
        typer.Option(
            help="Generate data for this domain: reviews, elix-easy, elix-hard, roleplay, reviews-restyled, advice, "
            "elix-written, reviews-written, or the folder of your own domain. Needs no configuration file."
        ),
    ] = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    executor: Annotated[
        Where | None, typer.Option(help="Where labelling runs: in this process (local) or on a Ray cluster (ray).")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster, or auto for the one on this machine. By default fspo starts a "
            "cluster on this machine."
        ),
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes of Ray; by default one per processor.")
    ] = None,
    on_existing: OnExisting = Existing.RESUME,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Generate the dataset of a run: questions, responses, users, labels, splits and checks.

    Examples:
      fspo synth --config configs/demo.yaml

      fspo synth --config configs/demo.yaml --set seed=1 --on-existing overwrite

      fspo synth --domain ./my-domain --set synthesis.judge=measured --output runs/mine

      fspo synth --config big.yaml --executor ray --ray-address auto
    """
    who = _executor(executor, ray_address, ray_workers)
    settings = _settings(file, config, domain, [*(overrides or []), *who], output)
    out = console()
    folder = RunFolder(settings)
    if dry_run:
        print_plan(folder, [DATA], on_existing, out)
        return
    with opened(folder, [DATA], on_existing, confirmation(folder, yes=yes)), shown(out) as progress:
        made = pipeline.synth(folder, progress)
    out.print(f"{made['preferences']:,} preferences of {made['users']:,} users are in {folder.data}.", markup=False)


def _settings(
    file: Path | None, config: Path | None, domain: str | None, overrides: list[str], output: Path | None
) -> RunConfig:
    if domain is None:
        return configured(file, config, overrides, output)
    chosen = [f"synthesis.domain={json.dumps(domain)}", *overrides]
    if file is None and config is None:
        return load_config(None, [f"name={json.dumps(Path(domain).resolve().name)}", *chosen], output)
    return configured(file, config, chosen, output)


def _executor(kind: Where | None, address: str | None, workers: int | None) -> list[str]:
    """The options on who labels, as overrides."""
    if kind is not Where.RAY and (address is not None or workers is not None):
        raise ConfigError("--ray-address and --ray-workers are for --executor ray; add it, or leave them out.")
    given = {"kind": kind, "address": address, "workers": workers}
    return [f"executor.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]
