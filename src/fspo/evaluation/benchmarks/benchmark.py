"""The benchmarks of `benchmarks.yaml`: where their data come from, who is shown what, and what is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import yaml
from pydantic import Field, TypeAdapter

from fspo.errors import ConfigError
from fspo.evaluation.config import EvaluationConfig
from fspo.paths import PlaceName
from fspo.preferences.published import Drawn
from fspo.printing import suggestion
from fspo.pydantic_errors import Section

__all__ = ["BENCHMARKS", "Benchmark", "BenchmarkConfig", "Protocol", "Rows", "benchmark_of"]

_CHANGEABLE = ("users", "shots", "queries", "episodes", "answers")


@dataclass(frozen=True)
class Rows:
    """Published rows: who has them, and how they are read."""

    kind: str
    """One of `fspo.preferences.published.PUBLISHED`."""
    hub: str
    """Where they are, as `hub:owner/name`, or one file of it."""
    part: str = ""
    """Of several files, those of this part are read, by their names; see `fspo.preferences.hub.of_part`."""
    drawn: Drawn | None = None
    """Users that are drawn, where the rows have none."""
    group: str = ""
    """Where some users are of this group, they alone are held out."""


@dataclass(frozen=True)
class Protocol:
    """Who is shown how many shots and asked how many queries."""

    shots: int
    queries: int | None = None
    """Of each episode, at most; None: all of the user's held-out pairs."""
    users: int | None = None
    """At most so many, drawn evenly from their groups; None: all of them."""
    episodes: int = 1
    answers: int | None = 0
    """Prompts answered for each user; None: as many as the run's evaluation says."""
    parted: bool = False
    """Whether the rows say which of a user's pairs may be shots and which are queries (`split`)."""
    seed: int = 0

    def changed(self, settings: BenchmarkConfig) -> Protocol:
        """The protocol as a run wants it."""
        return Protocol(**vars(self) | {name: getattr(settings, name) for name in self.departures(settings)})

    def departures(self, settings: BenchmarkConfig) -> dict[str, tuple[Any, Any]]:
        """Setting -> (the protocol's, the run's), of those that differ."""
        wanted = {name: getattr(settings, name) for name in _CHANGEABLE}
        return {
            name: (getattr(self, name), value)
            for name, value in wanted.items()
            if value is not None and value != getattr(self, name)
        }

    def evaluation(self, config: EvaluationConfig) -> EvaluationConfig:
        """A run's settings of evaluation with what the protocol decides."""
        decided: dict[str, Any] = {"seed": self.seed, "users": None, "shots": self.shots, "episodes": self.episodes}
        if self.queries is not None:
            decided["queries"] = self.queries
        if self.answers is not None:
            decided["answers"] = self.answers
        return config.model_copy(update=decided)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark; see docs/benchmarks.md."""

    name: str
    title: str
    measure: Literal["reward_accuracy", "win_rate"]
    """What its papers report, by its name in `metrics.json`."""
    protocol: Protocol
    rows: Rows | None = None
    """The published rows; None where there are none, and `fspo synth` makes the data."""
    differences: tuple[str, ...] = ()
    """How our protocol differs from that of the published figures, one sentence each."""
    users: int | None = None
    """Of how many the published figures are, where that is told."""
    synthesis: Mapping[str, Any] = field(default_factory=dict)
    """Of the own domains: the section `synthesis` by which the data are made, that of the domain's file in configs/."""


class BenchmarkConfig(Section):
    """Settings of one benchmark. Every setting departs from the published protocol, and the comparison says so."""

    data: PlaceName | None = Field(default=None, min_length=1)
    """A file or folder with the published rows, or hub:owner/name; null: the hub, or for fspo's own domains generated
    data."""
    users: int | None = Field(default=None, ge=1)
    """Maximum number of users; null: as in the protocol."""
    shots: int | None = Field(default=None, ge=1)
    """Shots of each user; null: as in the protocol."""
    queries: int | None = Field(default=None, ge=1)
    """Maximum number of queries of each episode; null: as in the protocol."""
    episodes: int | None = Field(default=None, ge=1)
    """Episodes of each user; null: as in the protocol. Must be 1 if the rows name their shots."""
    answers: int | None = Field(default=None, ge=0)
    """Prompts to answer for each user, for win rates; null: as in the protocol."""


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
    raise ConfigError(f"There is no benchmark '{name}'{suggestion(name, BENCHMARKS)}")
