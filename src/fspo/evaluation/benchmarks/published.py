"""Figures of others, read from `published.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["Figure", "Source", "published"]


@dataclass(frozen=True)
class Source:
    """Where figures stand."""

    paper: str
    where: str
    error: str | None
    """What its errors are."""


@dataclass(frozen=True)
class Figure:
    """One published figure, in percent."""

    name: str
    model: str
    value: float
    source: Source
    error: float | None = None
    sees: str = ""
    """What the method knows of the user."""


def published(benchmark: str) -> tuple[Figure, ...]:
    """The figures of others on a benchmark, in the order of the file; none where none could be read in their source."""
    record = _record()
    return tuple(
        Figure(**row | {"source": Source(**record["sources"][row["source"]])})
        for row in record["benchmarks"].get(benchmark, ())
    )


@cache
def _record() -> dict[str, Any]:
    text = files("fspo.evaluation.benchmarks").joinpath("published.yaml").read_text(encoding="utf-8")
    record: dict[str, Any] = yaml.safe_load(text)
    return record
