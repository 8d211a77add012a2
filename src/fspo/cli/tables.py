"""The table that a run ends with, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fspo.evaluation.metrics.summary import summary_table
from fspo.runs.folder import RunFolder
from fspo.runs.pipeline import details_of, need_results

if TYPE_CHECKING:
    from rich.console import Console


__all__ = ["print_table"]


def print_table(folder: RunFolder, console: Console, benchmark: str = "") -> None:
    """Print the headline measures of every method, or those on a benchmark.

    Raises:
        DataError: the run has not been evaluated.
    """
    console.print()
    title = f"{folder.config.name} on {benchmark}" if benchmark else folder.config.name
    metrics, details = need_results(folder, benchmark), details_of(folder, benchmark)
    console.print(summary_table(metrics, title=title, details=details))
