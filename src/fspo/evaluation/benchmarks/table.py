"""The benchmarks there are, as `benchmarks.yaml` says."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

import yaml
from pydantic import TypeAdapter

from fspo.errors import ConfigError
from fspo.evaluation.benchmarks.benchmark import Benchmark
from fspo.preferences.validation import nearest

__all__ = ["BENCHMARKS", "benchmark_of"]


def _read() -> Mapping[str, Benchmark]:
    rows = yaml.safe_load(files(__package__).joinpath("benchmarks.yaml").read_text(encoding="utf-8"))
    adapter = TypeAdapter(Benchmark)
    return MappingProxyType({name: adapter.validate_python({"name": name, **row}) for name, row in rows.items()})


BENCHMARKS: Mapping[str, Benchmark] = _read()
"""All benchmarks by name, the own domains first."""


def benchmark_of(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    close = nearest(name, BENCHMARKS, cutoff=0.5)
    raise ConfigError(
        f"There is no benchmark '{name}'; "
        + (f"did you mean '{close}'?" if close else f"choose from {', '.join(BENCHMARKS)}.")
    )
