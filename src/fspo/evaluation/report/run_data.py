"""What a page is made from: the files of one evaluation, each read once and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fspo.evaluation.artifact_schemas import (
    CALIBRATION,
    DETAILS,
    JUDGES,
    PER_USER,
    SAMPLE,
    damaged,
    read_kept,
    read_rows,
)
from fspo.evaluation.judges.pairwise_matches import read_games
from fspo.evaluation.metrics.items import Items
from fspo.evaluation.metrics.summary import parse_estimates
from fspo.evaluation.statistics import Estimate, Game
from fspo.files import read_json

__all__ = ["RunData"]

Estimates = Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class RunData:
    """One evaluation as it lies on disk; what is not there is empty."""

    metrics: Estimates
    observer: Mapping[str, Estimate]
    details: Mapping[str, Any]
    comparisons: Estimates
    calibration: Mapping[str, Mapping[str, Any]]
    judges: Mapping[str, Any]
    per_user: Mapping[str, Any]
    items: Items
    games: Sequence[Game]
    samples: Sequence[Mapping[str, Any]]
    disagreement: Mapping[str, Any]
    """Of the checks of the data: how often users disagreed."""
    versions: Mapping[str, Any]

    @classmethod
    def of(cls, run_dir: Path, benchmark: str = "") -> RunData:
        """From the folder of a run; with `benchmark`, what was measured on that one.

        Raises:
            StorageError: a file is damaged or of another version, which it names.
        """
        # What was measured lies in a folder of its own; of the run itself some of it lies beside that too.
        folder = run_dir / "benchmarks" / benchmark if benchmark else run_dir / "evaluation"
        beside = folder if benchmark else run_dir
        details = read_kept(DETAILS, folder / "details.json")
        checks = {} if benchmark else _mapping(run_dir / "data" / "checks.json")
        disagreement = checks.get("disagreement")
        return cls(
            metrics=_estimates(beside / "metrics.json", folder / "metrics.json"),
            observer=_estimates(folder / "observer.json", flat=True)[""],
            details=details,
            comparisons=_estimates(folder / "comparisons.json"),
            calibration=read_kept(CALIBRATION, folder / "calibration.json"),
            judges=read_kept(JUDGES, folder / "judges.json"),
            per_user=read_kept(PER_USER, folder / "per_user.json"),
            items=Items.read(folder),
            games=read_games(folder),
            samples=read_rows(SAMPLE, folder / "samples.jsonl"),
            disagreement=disagreement if isinstance(disagreement, dict) else {},
            versions=_mapping(run_dir / "versions.json"),
        )


def _estimates(*paths: Path, flat: bool = False) -> dict[str, dict[str, Estimate]]:
    """The estimates of the first file that is there; those of a `flat` file have no method, and stand under none."""
    path = next((path for path in paths if path.exists()), None)
    value = read_json(path) if path is not None else {}
    return parse_estimates({"": value} if flat else value, path or paths[0])


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.exists() else {}
    if not isinstance(value, dict):
        raise damaged(path, "names and values")
    return value
