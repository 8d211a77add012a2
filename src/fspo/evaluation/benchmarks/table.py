"""The benchmarks there are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fspo.errors import ConfigError
from fspo.evaluation.benchmarks import personal_reward_bench, prism
from fspo.evaluation.benchmarks.benchmark import Benchmark
from fspo.evaluation.benchmarks.domains import DOMAINS
from fspo.evaluation.benchmarks.personal_llm import PERSONAL_LLM
from fspo.preferences.validation import nearest

__all__ = ["BENCHMARKS", "benchmark_of"]

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        row.name: row
        for row in (
            *DOMAINS,
            personal_reward_bench.ARENA,
            personal_reward_bench.PRISM,
            prism.UTTERANCES,
            PERSONAL_LLM,
        )
    }
)
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
