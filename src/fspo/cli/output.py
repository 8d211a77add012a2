"""What several verbs print: the plan of a dry run, and the table that a run ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fspo.evaluation.metrics.summary import summary_table
from fspo.runs.existing import Existing
from fspo.runs.folder import RunFolder
from fspo.runs.pipeline import details_of, need_results
from fspo.runs.plan import plan

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_plan", "print_table"]


def print_plan(folder: RunFolder, parts: Sequence[str], policy: Existing, console: Console) -> None:
    """Print what making these parts would do, once the folder and the inputs are checked.

    Each paragraph is printed as soon as it is known, since some wait for a measurement.

    Raises:
        FspoError: as `fspo.runs.plan.plan`.
    """
    for place, paragraph in enumerate(plan(folder, parts, policy)):
        if place:
            console.print()
        console.print(paragraph.rstrip(), markup=False)


def print_table(folder: RunFolder, console: Console, benchmark: str = "") -> None:
    """Print the headline measures of every method, or those on a benchmark, and how long each was trained.

    Raises:
        DataError: the run has not been evaluated.
    """
    from fspo.evaluation.report.training_section import training_costs

    console.print()
    title = f"{folder.config.name} on {benchmark}" if benchmark else folder.config.name
    metrics, details = need_results(folder, benchmark), details_of(folder, benchmark)
    console.print(summary_table(metrics, title=title, details=details))
    costs = training_costs(folder.path)
    trained = [f"{name} for {costs[name].said}" for name in metrics if name in costs]
    if trained:
        console.print(f"Trained: {'; '.join(trained)}.", markup=False)
