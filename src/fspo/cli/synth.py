"""`fspo synth`: synthetic users and preferences, or the import of a run's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fspo.cli.options import ConfigFile, DryRun, Existing, OnExisting, OutputFolder, Overrides, configured, console

if TYPE_CHECKING:
    from fspo.cli.config import RunConfig

__all__ = ["synth"]


def synth(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    domain: Annotated[
        str | None,
        typer.Option(
            help="Make the data of this domain by the paper's recipe: reviews, elix-easy, elix-hard, roleplay, or the "
            "folder of one's own. Needs no configuration file."
        ),
    ] = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    on_existing: OnExisting = Existing.RESUME,
    dry_run: DryRun = False,
) -> None:
    """Make the dataset of a run: questions, responses, users, labels, splits and checks.

    Examples:
      fspo synth --config configs/reviews-cpu.yaml

      fspo synth --config configs/reviews-cpu.yaml --set seed=1 --on-existing overwrite

      fspo synth --domain ./my-domain --set synthesis.judge=measured --output runs/mine
    """
    settings = _settings(file, config, domain, overrides, output)
    from fspo.cli import stages
    from fspo.cli.folder import DATA, RunFolder

    out = console()
    folder = RunFolder(settings)
    if dry_run:
        stages.preview(folder, [DATA], on_existing, out)
        return
    with folder.opened([DATA], on_existing), stages.shown(out) as progress:
        made = stages.synth(folder, progress)
    out.print(f"{made['preferences']:,} preferences of {made['users']:,} users are in {folder.data}.", markup=False)


def _settings(
    file: Path | None, config: Path | None, domain: str | None, overrides: list[str] | None, output: Path | None
) -> RunConfig:
    from fspo.cli.config import load_config

    if domain is None:
        return configured(file, config, overrides, output)
    chosen = ["synthesis.recipe=paper", f"synthesis.domain={json.dumps(domain)}", *(overrides or [])]
    if file is None and config is None:
        return load_config(None, [f"name={json.dumps(Path(domain).resolve().name)}", *chosen], output)
    return configured(file, config, chosen, output)
