"""What a page is made from: the files of one evaluation, each read once and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fspo.evaluation.artifacts import (
    AGAIN,
    GAMES_FILE,
    CalibrationRecord,
    Calibrations,
    Estimates,
    JudgesRecord,
    PerUser,
    Sample,
    read_details,
)
from fspo.evaluation.config import BASE
from fspo.evaluation.metrics.items import Items
from fspo.evaluation.statistics.intervals import Estimate
from fspo.evaluation.statistics.ranking import Game
from fspo.records import read_record, read_records

__all__ = ["RunData", "settings_of"]


@dataclass(frozen=True)
class RunData:
    """One evaluation as it lies on disk; what is not there is empty."""

    metrics: Estimates
    observer: Mapping[str, Estimate]
    details: Mapping[str, Any]
    comparisons: Estimates
    calibration: Mapping[str, CalibrationRecord]
    judges: JudgesRecord
    per_user: PerUser
    items: Items
    games: Sequence[Game]
    samples: Sequence[Sample]
    checks: Mapping[str, Any]
    """Of the data, which are not shown with a benchmark."""
    versions: Mapping[str, Any]

    @property
    def baseline(self) -> str:
        """The method whose answers the others' are judged against."""
        return str(self.details.get("baseline", BASE))

    @property
    def given(self) -> bool:
        """Whether the answers were given, so that no method was scored or trained."""
        return bool(self.details.get("given"))

    @classmethod
    def of(cls, run_dir: Path, benchmark: str = "") -> RunData:
        """From the folder of a run; with `benchmark`, what was measured on that one.

        Raises:
            StorageError: a file is damaged or of another version, which it names.
        """
        folder = run_dir / "benchmarks" / benchmark if benchmark else run_dir / "evaluation"
        results = folder if benchmark else run_dir
        return cls(
            metrics=read_record(results / "metrics.json", Estimates, AGAIN) or {},
            observer=read_record(folder / "observer.json", dict[str, Estimate], AGAIN) or {},
            details=read_details(folder),
            comparisons=read_record(folder / "comparisons.json", Estimates, AGAIN) or {},
            calibration=read_record(folder / "calibration.json", Calibrations, AGAIN) or {},
            judges=read_record(folder / "judges.json", JudgesRecord, AGAIN) or JudgesRecord(),
            per_user=read_record(folder / "per_user.json", PerUser, AGAIN) or {},
            items=Items.read(folder),
            games=read_records(folder / GAMES_FILE, Game, AGAIN),
            samples=read_records(results / "samples.jsonl", Sample, AGAIN),
            checks={} if benchmark else _mapping(run_dir / "data" / "checks.json"),
            versions=_mapping(run_dir / "versions.json"),
        )


def _mapping(path: Path) -> dict[str, Any]:
    return read_record(path, dict[str, Any], AGAIN) or {}


def settings_of(config: str) -> Mapping[str, Any]:
    """The settings in the text of a run's `config.yaml`; empty where it can't be read."""
    try:
        value = yaml.safe_load(config)
    except (ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
