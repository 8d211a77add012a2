"""What a verb would do, without doing any of it: `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from fspo.modeling.model_names import place_here
from fspo.runs.checks import check_episodes, check_instruments, check_synthesis, warn_of_keys
from fspo.runs.estimates import asked_table
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, EVALUATION, RunFolder
from fspo.runs.model_summary import asked_lines, template_lines
from fspo.runs.pipeline import check_model, dataset_of, has_data, own_data, splits_of, unchanged

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["preview"]

_OF_DATA = ("name", "seed", "output", "model", "data", "endpoint", "ensemble", "synthesis", "executor")
"""The settings that the run's dataset depends on, and no others."""


def preview(folder: RunFolder, parts: Sequence[str], policy: Existing, console: Console) -> None:
    """Check everything that can be checked without a side effect, and say what would be done."""
    folder.check(parts, policy)
    check_model(folder.config.model)
    goes_on = any(part != DATA for part in parts)  # to training or evaluation
    found = None
    if folder.config.data is not None:
        found = dataset, splits = own_data(folder) if policy is Existing.OVERWRITE else unchanged(folder)
        console.print(
            f"Data: {len(dataset):,} preferences, {len(splits.part(dataset, 'test')):,} held out.", markup=False
        )
    elif DATA not in parts or (policy is not Existing.OVERWRITE and has_data(folder)):
        found = dataset_of(folder), splits_of(folder)
    else:
        check_synthesis(folder.config)
        table = asked_table(folder.config)
        if table:
            console.print("\n".join([table, *asked_lines(folder.config)]) + "\n", markup=False)
        for line in (*template_lines(folder.config), *warn_of_keys(folder.config)):
            console.print(f"{line}\n", markup=False)
    if found is not None and goes_on:
        place = place_here(folder.config.model)
        for line in check_episodes(folder, *found, evaluated=EVALUATION in parts, model=place):
            console.print(line, markup=False)
    if EVALUATION in parts:
        for warning in check_instruments(folder.config.evaluation, folder.evaluation):
            console.print(f"{warning}\n", markup=False)
    settings = {name: value for name, value in folder.config.resolved().items() if goes_on or name in _OF_DATA}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
    console.print(f"{text}\nWould make in {folder.path}:", markup=False)
    for part in parts:
        state = "to do"
        if folder.begun(part):
            state = "made anew" if policy is Existing.OVERWRITE else "continued, or kept if it is finished"
        console.print(f"  {part}: {state}", markup=False)
